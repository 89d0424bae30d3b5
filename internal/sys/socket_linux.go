package sys

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// SocketPair returns two connected stream sockets, O_CLOEXEC.
func SocketPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control"), nil
}

// PacketPair returns two connected sockets that keep packets apart
// (SOCK_SEQPACKET), O_CLOEXEC. Who sends on b gets EAGAIN if there is no room for long.
func PacketPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	patience := unix.NsecToTimeval(int64(200 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fds[1], unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "channel"), os.NewFile(uintptr(fds[1]), "channel"), nil
}

// HangUp ends the connection of a socket, whoever else has copies of its other end.
func HangUp(sock int) { _ = unix.Shutdown(sock, unix.SHUT_RDWR) } // fails if it has ended

// WaitReadable waits until fd can be read, or has hung up. False: not within d.
func WaitReadable(fd int, d time.Duration) (bool, error) {
	end := time.Now().Add(d)
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, int(max(time.Until(end), 0).Milliseconds()))
		if err != unix.EINTR {
			return n > 0, err
		}
	}
}

// SendWithFDs writes all of data to a socket, or a packet; the fds travel with its
// first byte.
func SendWithFDs(sock int, data []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for len(data) > 0 {
		n, err := unix.SendmsgN(sock, data, oob, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		data, oob = data[n:], nil
	}
	return nil
}

// RecvWithFDs reads at most len(buf) bytes of a socket, or a packet, and the fds that
// came with them, O_CLOEXEC. 0 bytes: the other side is gone, or has sent an empty
// packet.
func RecvWithFDs(sock int, buf []byte) (n int, fds []int, err error) {
	return recvWithFDs(sock, buf, 0)
}

// PeekWithFDs is RecvWithFDs, but the packet stays where it is, for DropPacket; with
// wait false it doesn't wait: EAGAIN.
func PeekWithFDs(sock int, buf []byte, wait bool) (n int, fds []int, err error) {
	flags := unix.MSG_PEEK
	if !wait {
		flags |= unix.MSG_DONTWAIT
	}
	return recvWithFDs(sock, buf, flags)
}

// DropPacket takes a packet away that PeekWithFDs has shown.
func DropPacket(sock int) {
	var b [1]byte
	for { // the rest of it goes, too, and its fds
		// ECONNRESET is told once, in place of the packet.
		if _, err := unix.Read(sock, b[:]); err != unix.EINTR && err != unix.ECONNRESET {
			return
		}
	}
}

func recvWithFDs(sock int, buf []byte, flags int) (n int, fds []int, err error) {
	oob := make([]byte, unix.CmsgSpace(4*16))
	var oobn int
	for {
		n, oobn, _, _, err = unix.Recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC|flags)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return 0, nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return n, nil, err
	}
	for i := range msgs {
		if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return n, fds, nil
}
