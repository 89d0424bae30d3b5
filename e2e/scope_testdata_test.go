package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// TestScopeTestdata loads and runs all programs of the cilium/ebpf test data, those that
// trace with a guard and with the workload's ids: each loads whenever it does without, with
// the same log, and gives the same results.
func TestScopeTestdata(t *testing.T) {
	needRoot(t)
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cilium/ebpf").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "testdata", "*-el.elf"))
	if err != nil || len(files) < 20 {
		t.Fatalf("%d objects, %v", len(files), err)
	}
	for _, f := range files { // where all may read them
		b, err := os.ReadFile(f)
		if err == nil {
			err = os.WriteFile(filepath.Join(bin, filepath.Base(f)), b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	policies := map[string]string{}
	for name, text := range map[string]string{"scope": scoped, "pids": numbered} {
		policies[name] = policyFile(t, strings.Replace(text, "    commands: [prog_load, perf_event_open]\n",
			"    commands: [prog_load]\n    when: prog.type in ['kprobe', 'tracepoint', 'raw_tracepoint', 'perf_event', 'tracing'] && prog.attach_type != 'trace_iter'\n", 1))
	}
	for _, kind := range kinds(t) {
		run := func(policy string) []string {
			return strings.Split(output(t, brokeredBy(policy, probe("scope-testdata", bin), "--quiet", "--pid=private", "--symbols=show", "--worker="+kind)), "\n")
		}
		want := run("trusted")
		tracing := 0
		for _, line := range want {
			if strings.Contains(line, ": loads, guarded") {
				tracing++
			}
		}
		if tracing < 20 {
			t.Errorf("%s: of the %d programs %d trace and load: this tells little", kind, len(want), tracing)
		}
		for name, file := range policies {
			got := run(file)
			if len(got) != len(want) {
				t.Fatalf("%s, %s: %d lines, wanted %d", kind, name, len(got), len(want))
			}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("%s, %s:\n%s\nwithout\n%s", kind, name, got[i], want[i])
				}
			}
		}
		t.Logf("%s: %d programs, %d of them trace and load", kind, len(want)-1, tracing)
	}
}

func init() {
	times := regexp.MustCompile(`verification time \d+ usec|[0-9a-f]{16}|(map|fd|id)[ =:]*\d+`)
	// Loads the programs of the objects in a directory, each by itself, and runs them.
	probes["scope-testdata"] = func() {
		files, err := filepath.Glob(filepath.Join(os.Args[1], "*-el.elf"))
		if err != nil {
			fail("%v", err)
		}
		for _, file := range files {
			spec, err := ebpf.LoadCollectionSpec(file)
			if err != nil {
				continue // made to be refused
			}
			for _, m := range spec.Maps {
				m.Pinning = ebpf.PinNone
			}
			for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
				one := spec.Copy()
				one.Programs = map[string]*ebpf.ProgramSpec{name: one.Programs[name]}
				fmt.Printf("%s %s (%v): %s\n", filepath.Base(file), name, one.Programs[name].Type, times.ReplaceAllString(loadAndRun(one, name), "N"))
			}
		}
	}
}

// loadAndRun says how that goes.
func loadAndRun(spec *ebpf.CollectionSpec, name string) string {
	one := spec.Programs[name]
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
	if err != nil {
		var v *ebpf.VerifierError
		if errors.As(err, &v) {
			return fmt.Sprintf("%v, %q", v.Cause, v.Log)
		}
		return err.Error()
	}
	defer c.Close()
	p := c.Programs[name]
	if p == nil {
		return "isn't made by itself"
	}
	said := "loads"
	if slices.Contains([]ebpf.ProgramType{ebpf.Kprobe, ebpf.TracePoint, ebpf.RawTracepoint, ebpf.PerfEvent, ebpf.Tracing}, p.Type()) && one.AttachType != ebpf.AttachTraceIter {
		said += ", guarded"
	}
	said += fmt.Sprintf(", %q", p.VerifierLog)
	info, err := p.Info()
	if err != nil {
		return said + err.Error()
	}
	verified, _ := info.VerifiedInstructions()
	said += fmt.Sprint(", ", info.Tag, ", ", verified)
	if insns, err := info.Instructions(); err == nil {
		for i := range insns {
			if insns[i].OpCode == asm.LoadImmOp(asm.DWord) || insns[i].IsBuiltinCall() { // ids and addresses
				insns[i].Constant = 0
			}
		}
		said += fmt.Sprintf(", %q", fmt.Sprintf("%v", insns))
	}
	var ctx any
	if p.Type() == ebpf.RawTracepoint {
		ctx = make([]byte, 16)
	}
	ret, err := p.Run(&ebpf.RunOptions{Context: ctx})
	return said + fmt.Sprint(", ", ret, " ", err)
}
