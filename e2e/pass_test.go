package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// receive takes the fds that the host passes at a socket.
func receive(path string) []int {
	c, err := net.Dial("unix", path)
	if err != nil {
		panic(err)
	}
	defer c.Close()
	b, oob := make([]byte, 1), make([]byte, 256)
	_, n, _, _, err := c.(*net.UnixConn).ReadMsgUnix(b, oob)
	if err != nil {
		panic(err)
	}
	ms, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		panic(err)
	}
	fds, err := unix.ParseUnixRights(&ms[0])
	if err != nil {
		panic(err)
	}
	return fds
}

// pass passes fds to all who connect, and returns where.
func pass(t *testing.T, fds ...int) string {
	t.Helper()
	path := filepath.Join(bin, "pass-"+strconv.Itoa(os.Getpid()))
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.(*net.UnixConn).WriteMsgUnix([]byte{0}, unix.UnixRights(fds...), nil)
			c.Close()
		}
	}()
	return path
}
