package launch

import (
	"encoding/binary"
	"io"
	"os"
	"syscall"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// beInit makes this process the init of the workload's pid namespace: CMD's
// parent, which reaps what it inherits, and ends with CMD; the kernel then kills
// what is left in the namespace. It forwards the signals that `run` tells it, and
// those that processes in the namespace send to it. It returns if CMD can't be
// executed.
func (s *setup) beInit(l *link, infos *sys.SigInfos) error {
	fd, err := l.take() // its socket
	if err != nil {
		return err
	}
	run := os.NewFile(uintptr(fd), "run")
	files, _ := fdTable([3]uintptr{0, 1, 2}, inherited)
	var pid int
	err = s.execute(func(path string, args []string) (err error) {
		pid, _, err = syscall.StartProcess(path, args, &syscall.ProcAttr{Env: s.Env, Files: files})
		return err
	})
	if err != nil {
		return err
	}
	// What CMD was given is CMD's alone.
	_ = sys.ReplaceByNull(0, 1, 2)
	for _, fd := range inherited {
		sys.Close(fd)
	}
	l.close()

	// CMD has inherited what is to be ignored, and may want to hear of it since.
	if err := infos.Catch(forwarded...); err != nil {
		return err
	}
	// CMD may have just ended: so shall we.
	go func() {
		for {
			var m [2]byte
			if _, err := io.ReadFull(run, m[:]); err != nil {
				return // it was killed
			}
			if sig := syscall.Signal(m[0]); m[1] == 0 || missed(pid, sig) {
				_ = syscall.Kill(pid, sig)
			}
		}
	}()
	go func() {
		for {
			s, err := infos.Next()
			if err != nil {
				return
			}
			// A process outside, or the terminal, meant our process group.
			if s.PID != 0 || missed(pid, s.Signal) {
				_ = syscall.Kill(pid, s.Signal)
			}
		}
	}()
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, syscall.WUNTRACED, nil)
		if err != nil || got != pid {
			continue // EINTR, or a process that the namespace left to us
		}
		if ws.Stopped() && !stopped(pid) {
			continue
		}
		// `run` was killed if this fails; the guardian will end us.
		_, _ = run.Write(binary.LittleEndian.AppendUint32(nil, uint32(ws)))
		switch {
		case ws.Stopped():
		case ws.Signaled():
			os.Exit(128 + int(ws.Signal()))
		default:
			os.Exit(ws.ExitStatus())
		}
	}
}
