// Cilium is a program of the demo: it uses github.com/cilium/ebpf to create a
// hash map, to load a program that counts a system call in it, and to attach
// that with a link. It knows nothing of bpfbroker.
package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

const calls = 1000

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	counts, err := ebpf.NewMap(&ebpf.MapSpec{
		Name:       "counts",
		Type:       ebpf.Hash,
		KeySize:    8,
		ValueSize:  8,
		MaxEntries: 16,
	})
	if err != nil {
		return err
	}
	defer counts.Close()
	key := uint64(syscall.SYS_GETPPID)
	if err := counts.Put(key, uint64(0)); err != nil {
		return err
	}

	// counts[ctx.args[1]]++, where the user's side has made that element.
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:    "count_syscall",
		Type:    ebpf.RawTracepoint,
		License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R1, asm.R1, 8, asm.DWord),
			asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord),
			asm.LoadMapPtr(asm.R1, counts.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -8),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.Mov.Imm(asm.R1, 1),
			asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
			asm.Return(),
		},
	})
	if err != nil {
		return err
	}
	defer prog.Close()

	attached, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: prog})
	if err != nil {
		return err
	}
	defer attached.Close()

	for range calls {
		syscall.Getppid()
	}
	var got uint64
	if err := counts.Lookup(key, &got); err != nil {
		return err
	}
	fmt.Printf("%d calls: the map counts %d\n", calls, got)
	if got < calls { // others may call getppid, too
		return errors.New("calls are missing")
	}
	return nil
}
