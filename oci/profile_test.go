package oci

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var options = ProfileOptions{Listener: "/run/bpfbroker/oci.sock", Metadata: "x", Native: []uint32{1, 2, 10, 33}}

// holds says whether a condition does.
func holds(a specs.LinuxSeccompArg, v uint64) bool {
	switch a.Op {
	case specs.OpEqualTo:
		return v == a.Value
	case specs.OpGreaterThan:
		return v > a.Value
	case specs.OpMaskedEqual:
		return v&a.Value == a.ValueTwo
	}
	panic(a.Op)
}

// answer is what a profile says to a call of which one argument matters. That no two rules
// with other actions hold, libseccomp wants.
func answer(t *testing.T, p *specs.LinuxSeccomp, name string, args ...uint64) specs.LinuxSeccompAction {
	t.Helper()
	var found []specs.LinuxSeccompAction
	for _, r := range p.Syscalls {
		for _, n := range r.Names {
			if n != name {
				continue
			}
			all := true
			for _, a := range r.Args {
				all = all && holds(a, args[a.Index])
			}
			if all {
				found = append(found, r.Action)
			}
		}
	}
	for _, a := range found {
		if a != found[0] {
			t.Fatalf("%s %#x: %v", name, args, found)
		}
	}
	if len(found) == 0 {
		return p.DefaultAction
	}
	return found[0]
}

func TestProfile(t *testing.T) {
	podman, err := os.ReadFile("testdata/base.json")
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for name, base := range map[string][]byte{"none": AllowAll(), "denies": podman} {
		b, err := Profile(base, options)
		if err != nil {
			t.Fatal(err)
		}
		var p specs.LinuxSeccomp
		if err := json.Unmarshal(b, &p); err != nil {
			t.Fatal(err)
		}
		if p.ListenerPath != options.Listener || p.ListenerMetadata != "x" {
			t.Errorf("%s: listener %q, %q", name, p.ListenerPath, p.ListenerMetadata)
		}
		want := func(action specs.LinuxSeccompAction, call string, args ...uint64) {
			t.Helper()
			if got := answer(t, &p, call, args...); got != action {
				t.Errorf("%s: %s %#x: %v, wanted %v", name, call, args, got, action)
			}
		}
		for command := range uint64(50) {
			action := specs.ActNotify
			switch command {
			case 1, 2, 10, 33:
				action = specs.ActAllow
			}
			want(action, "bpf", command)
			want(specs.ActNotify, "bpf", command|1<<32)
		}
		want(specs.ActNotify, "bpf", 1<<16|1)
		want(specs.ActNotify, "bpf", 1<<32-1)
		want(specs.ActNotify, "bpf", 1<<64-1)
		want(specs.ActNotify, "perf_event_open")
		for _, high := range []uint64{0, 1 << 32, 0xffffffff << 32} {
			want(specs.ActNotify, "ioctl", 0, perfSetBPF|high)
			want(specs.ActNotify, "ioctl", 0, perfQueryBPF|high)
			for bit := range 32 {
				want(specs.ActAllow, "ioctl", 0, perfSetBPF^1<<bit|high)
				want(specs.ActAllow, "ioctl", 0, perfQueryBPF^1<<bit|high)
			}
			for range 10_000 {
				v := uint64(r.Uint32())
				if r.IntN(2) == 0 { // one that has much of both
					m := uint64(r.Uint32())
					v = perfSetBPF&m | perfQueryBPF&^m
				}
				if v != perfSetBPF && v != perfQueryBPF {
					want(specs.ActAllow, "ioctl", 0, v|high)
				}
			}
		}
		want(specs.ActAllow, "read")
		if name == "denies" {
			want(specs.ActErrno, "kexec_load")
			if !strings.Contains(string(b), `"archMap"`) || !strings.Contains(string(b), "18446744073709551615") {
				t.Error("what was in the base is lost")
			}
		}
	}
}

func TestProfileRefuses(t *testing.T) {
	for text, want := range map[string]string{
		``:                                    "isn't JSON",
		`[]`:                                  "isn't JSON",
		`{}`:                                  "has no defaultAction",
		`{"defaultAction":7}`:                 "no seccomp profile",
		`{"defaultAction":"SCMP_ACT_NOTIFY"}`: "has a listener already",
		`{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}`:                                                                       `has a listener already ("/x")`,
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_ACT_NOTIFY"}]}`:                               `notifies of ["mount"] already`,
		`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":2}]}]}`: "rule for ioctl()",
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["ioctl"],"action":"SCMP_ACT_ERRNO"}]}`:                                "rule for ioctl()",
	} {
		if _, err := Profile([]byte(text), options); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, wanted %q", text, err, want)
		}
	}
}
