package policy

import (
	"embed"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/bpfbroker/bpfbroker/facts"
)

// constant is a policy that says the same to every operation.
type constant struct {
	name, about string
	trusts      bool
	decision    Decision
	ceiling     Ceiling
}

func (b *constant) Name() string                 { return b.name }
func (b *constant) Trusts() bool                 { return b.trusts }
func (b *constant) Ceiling() Ceiling             { return b.ceiling }
func (b *constant) Decide(*facts.Facts) Decision { return b.decision }
func (b *constant) Counts() bool                 { return false }
func (b *constant) Needs(string) facts.Set       { return facts.Set{} }

var deny = &constant{"deny", "allows nothing, and shows at the end what the command would have needed", false,
	Decision{Verdict: Deny, Cause: ByRule, Rule: "deny", Message: "policy deny allows nothing"}, Ceiling{}}

// Revoked is the policy of workloads whose rights were withdrawn. Users can't choose it.
var Revoked Policy = revoked

var revoked = &constant{"revoked", "", false,
	Decision{Verdict: Deny, Cause: ByRule, Rule: "revoked", Message: "the workload's rights were withdrawn (bpfbroker revoke)"}, Ceiling{}}

var trusted = &constant{"trusted", "allows everything, host-wide effects included: for programs that you would run as root", true,
	Decision{Verdict: Allow, Cause: ByRule, Rule: "trusted", Message: "policy trusted allows everything"},
	Ceiling{Commands: Any, Maps: Any, Progs: Any, Attachs: Any, KernelMemory: true, HostAdmin: "everything that root may do with bpf()"}}

// builtin/NAME.yaml is what users read, builtin/NAME.json the same as Encode has it, so
// that a worker reads no YAML: go test ./policy/load -update writes it.
//
//go:embed builtin/*.json builtin/observe.yaml builtin/network.yaml builtin/container-devices.yaml
var files embed.FS

// builtins are in the order of what they allow.
var builtins = []struct {
	name, about string
	get         func() (Policy, error)
}{
	{deny.name, deny.about, func() (Policy, error) { return deny, nil }},
	file("observe", "tracing, of the command's own tasks alone; nothing that reads the kernel's memory, or changes what others do"),
	file("network", "XDP, tc, sockets and cgroups, in network namespaces and cgroups of the command's own"),
	file("container-devices", "device filters of the command's own cgroups, as container runtimes and systemd make them"),
	{trusted.name, trusted.about, func() (Policy, error) { return trusted, nil }},
}

// file is a policy of builtin/, read when it is first asked for.
func file(name, about string) (b struct {
	name, about string
	get         func() (Policy, error)
}) {
	b.name, b.about = name, about
	b.get = sync.OnceValues(func() (Policy, error) {
		data, err := files.ReadFile("builtin/" + name + ".json")
		if err != nil {
			return nil, fmt.Errorf("read policy %q: %w", name, err)
		}
		r, err := Decode(data)
		if err != nil {
			return nil, fmt.Errorf("read policy %q: %w", name, err)
		}
		text, err := files.ReadFile("builtin/" + name + ".yaml")
		if err != nil {
			return nil, fmt.Errorf("read policy %q: %w", name, err)
		}
		return r.WithSource(text), nil
	})
	return b
}

// BuiltinSource is the YAML of a built-in policy; false: there is none, it is code.
func BuiltinSource(name string) ([]byte, bool) {
	text, err := files.ReadFile("builtin/" + name + ".yaml")
	return text, err == nil
}

// Default is the policy of who names none. Of those that are of use, it is the one whose
// programs see and change nothing but what is the workload's own.
const Default = "observe"

// Builtin returns the built-in policy called name. The error of an unknown name
// lists those that there are.
func Builtin(name string) (Policy, error) {
	if p := forTests(name); p != nil { // in builds for tests alone
		return p, nil
	}
	if name == revoked.name {
		return revoked, nil
	}
	for _, b := range builtins {
		if b.name == name {
			return b.get()
		}
	}
	return nil, fmt.Errorf("no policy %q; there are:\n%s", name, Describe())
}

// Names lists the built-in policies.
func Names() []string {
	var out []string
	for _, b := range builtins {
		out = append(out, b.name)
	}
	return out
}

// About says in a line what a built-in policy does.
func About(name string) string {
	for _, b := range builtins {
		if b.name == name {
			return b.about
		}
	}
	return ""
}

// Describe says in a line each what the built-in policies do.
func Describe() string {
	width := len(slices.MaxFunc(Names(), func(a, b string) int { return len(a) - len(b) }))
	var b strings.Builder
	for _, p := range builtins {
		fmt.Fprintf(&b, "  %-*s %s\n", width, p.name, p.about)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
