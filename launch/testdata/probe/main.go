// Probe is what the tests of package launch run in a workload where a shell's
// answer would be ambiguous.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	switch mode, args := os.Args[1], os.Args[2:]; mode {
	case "count":
		count(args[0])
	case "nest":
		nest(args[0])
	case "acl":
		acl(args[0])
	case "keys":
		keys()
	case "args":
		fmt.Println(len(args), len(strings.Join(args, "")), len(strings.Join(os.Environ(), "")))
	}
}

// count says "got" for each signal of a number, and ends with signal 40.
func count(number string) {
	n, err := strconv.Atoi(number)
	check(err)
	sigs := make(chan os.Signal, 100)
	signal.Notify(sigs, syscall.Signal(n), syscall.Signal(40))
	fmt.Println("ready")
	for s := range sigs {
		if s == syscall.Signal(40) {
			fmt.Println("end")
			return
		}
		fmt.Println("got")
	}
}

// nest makes cgroups below each other until their path is much longer than a
// path may be, and goes to the last one.
func nest(depth string) {
	n, err := strconv.Atoi(depth)
	check(err)
	check(os.Chdir("/sys/fs/cgroup"))
	for range n {
		name := strings.Repeat("n", 200)
		check(syscall.Mkdir(name, 0o755))
		check(syscall.Chdir(name))
	}
	check(os.WriteFile("cgroup.procs", []byte("0"), 0))
	fmt.Println("ready")
	time.Sleep(time.Hour)
}

// acl lets everyone write to a file, as its owner can.
func acl(path string) {
	const r, rw, none = 4, 6, ^uint32(0)
	b := []byte{2, 0, 0, 0}
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, rw, none}, {2, rw, 7}, {4, r, none}, {0x10, rw, none}, {0x20, rw, none}} {
		b = append(b, byte(e.tag), 0, byte(e.perm), 0, byte(e.id), byte(e.id>>8), byte(e.id>>16), byte(e.id>>24))
	}
	check(syscall.Setxattr(path, "system.posix_acl_access", b, 0))
}

// keys looks for the key that the test has put into its session keyring.
func keys() {
	t, _ := syscall.BytePtrFromString("user")
	d, _ := syscall.BytePtrFromString("launch-test")
	const search, session = 10, ^uintptr(2) // KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING
	_, _, e := syscall.Syscall6(syscall.SYS_KEYCTL, search, session, uintptr(unsafe.Pointer(t)), uintptr(unsafe.Pointer(d)), 0, 0)
	fmt.Println(e != 0)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}
