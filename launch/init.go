package launch

import (
	"encoding/binary"
	"os"
	"syscall"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// beInit makes this process the init of the workload's pid namespace: CMD's
// parent, which reaps what it inherits, forwards signals, and ends with CMD; the
// kernel then kills what is left in the namespace. It returns if CMD can't be
// executed.
func (s *setup) beInit(l *link, infos *sys.SigInfos) error {
	fd, err := l.take()
	if err != nil {
		return err
	}
	status := os.NewFile(uintptr(fd), "status")
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

	// What came before CMD was there, even from the terminal, is for it.
	for _, sig := range infos.Pending() {
		_ = syscall.Kill(pid, sig.Signal) // it has just ended: so shall we
	}
	// CMD has inherited what is to be ignored, and may want to hear of it since.
	if err := infos.Catch(forwarded...); err != nil {
		return err
	}
	go func() {
		for {
			sig, err := infos.Next()
			if err != nil {
				return
			}
			if !alreadyThere(sig) {
				_ = syscall.Kill(pid, sig.Signal)
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
		_, _ = status.Write(binary.LittleEndian.AppendUint32(nil, uint32(ws)))
		switch {
		case ws.Stopped():
		case ws.Signaled():
			os.Exit(128 + int(ws.Signal()))
		default:
			os.Exit(ws.ExitStatus())
		}
	}
}
