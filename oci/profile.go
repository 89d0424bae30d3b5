package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ProfileOptions say how to make a profile.
type ProfileOptions struct {
	Listener string   // path of the socket that takes listeners
	Metadata string   // that the runtime passes on with them
	Native   []uint32 // commands of bpf() that are left to the kernel
}

// AllowAll is a profile that allows everything, in the OCI's format.
func AllowAll() []byte {
	arches := map[string][]specs.Arch{"amd64": {specs.ArchX86_64, specs.ArchX86, specs.ArchX32}, "arm64": {specs.ArchAARCH64, specs.ArchARM}}
	b, err := json.Marshal(specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: arches[runtime.GOARCH]})
	if err != nil {
		panic(err)
	}
	return b
}

// Profile makes of a seccomp profile, in the OCI's format or in that of Docker and Podman,
// one by which a runtime sends the listener for bpf() and what belongs to it to the broker.
// All else of the base stays as it is. An error says what of it doesn't go with that.
//
// libseccomp, by which runtimes make filters of profiles, compares 64 bits of an argument,
// of which the kernel looks at 32: what has others set is no command that is named here,
// and notified. Foreign ABIs are notified like the native one, and refused by the broker.
func Profile(base []byte, o ProfileOptions) ([]byte, error) {
	var p map[string]json.RawMessage
	var rules []map[string]any
	var known specs.LinuxSeccomp
	if err := json.Unmarshal(base, &p); err != nil {
		return nil, fmt.Errorf("a profile that isn't JSON: %w", err)
	}
	if err := json.Unmarshal(base, &known); err != nil {
		return nil, fmt.Errorf("no seccomp profile: %w", err)
	}
	if known.DefaultAction == "" {
		return nil, errors.New("no seccomp profile: it has no defaultAction")
	}
	if known.ListenerPath != "" || known.DefaultAction == specs.ActNotify {
		return nil, fmt.Errorf("it has a listener already (%q): a filter can have one only", known.ListenerPath)
	}
	if raw := p["syscalls"]; raw != nil {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber() // numbers may need all of 64 bits
		if err := d.Decode(&rules); err != nil {
			return nil, fmt.Errorf("no seccomp profile: syscalls: %w", err)
		}
	}
	allows := map[string]bool{}
	for _, name := range []string{"bpf", "perf_event_open", "ioctl"} {
		allows[name] = known.DefaultAction == specs.ActAllow
	}
	for i, rule := range known.Syscalls {
		if rule.Action == specs.ActNotify {
			return nil, fmt.Errorf("it notifies of %q already: a filter can have one listener only", rule.Names)
		}
		for name := range allows {
			if !slices.Contains(rule.Names, name) {
				continue
			}
			if name == "ioctl" && (len(rule.Args) > 0 || rule.Action != specs.ActAllow) {
				return nil, fmt.Errorf("it has a rule for ioctl() (%s) beside which there can't be another", rule.Action)
			}
			allows[name] = allows[name] || rule.Action == specs.ActAllow
			rules[i]["names"] = slices.DeleteFunc(slices.Clone(rules[i]["names"].([]any)), func(n any) bool { return n == name })
		}
	}
	rules = slices.DeleteFunc(rules, func(r map[string]any) bool {
		names, is := r["names"].([]any)
		return is && len(names) == 0
	})
	for _, r := range notified(&o, known.DefaultAction, allows["ioctl"]) {
		b, err := json.Marshal(r)
		if err != nil {
			return nil, err
		}
		var generic map[string]any
		if err := json.Unmarshal(b, &generic); err != nil {
			return nil, err
		}
		for i, a := range r.Args { // float64 has too few bits for them
			generic["args"].([]any)[i] = a
		}
		rules = append(rules, generic)
	}
	for name, v := range map[string]any{"syscalls": rules, "listenerPath": o.Listener, "listenerMetadata": o.Metadata} {
		if v == "" {
			continue
		}
		b, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		p[name] = b
	}
	return json.MarshalIndent(p, "", "  ")
}

// notified are the rules for what the broker takes.
func notified(o *ProfileOptions, byDefault specs.LinuxSeccompAction, ioctl bool) (rules []specs.LinuxSyscall) {
	add := func(name string, action specs.LinuxSeccompAction, args ...specs.LinuxSeccompArg) {
		if action != byDefault { // which libseccomp wouldn't take
			rules = append(rules, specs.LinuxSyscall{Names: []string{name}, Action: action, Args: args})
		}
	}
	// Native commands are told by their numbers; whatever is above the last of them is ours.
	last := slices.Max(append(slices.Clone(o.Native), 0))
	for command := range last + 1 {
		action := specs.ActNotify
		if slices.Contains(o.Native, command) {
			action = specs.ActAllow
		}
		add("bpf", action, specs.LinuxSeccompArg{Index: 0, Value: uint64(command), Op: specs.OpEqualTo})
	}
	add("bpf", specs.ActNotify, specs.LinuxSeccompArg{Index: 0, Value: uint64(last), Op: specs.OpGreaterThan})
	add("perf_event_open", specs.ActNotify)
	if ioctl {
		for _, request := range []uint64{perfSetBPF, perfQueryBPF} {
			add("ioctl", specs.ActNotify, masked(1<<32-1, request))
		}
		for _, a := range neither(perfSetBPF, perfQueryBPF) {
			add("ioctl", specs.ActAllow, a)
		}
	}
	return rules
}

// The requests of ioctl() by which programs are attached to perf events, and asked for
// (include/uapi/linux/perf_event.h).
const (
	perfSetBPF   = 0x40042408 // PERF_EVENT_IOC_SET_BPF
	perfQueryBPF = 0xc008240a // PERF_EVENT_IOC_QUERY_BPF
)

// masked compares some bits of a request, of which the kernel takes 32.
func masked(mask, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: 1, Value: mask, ValueTwo: value & mask, Op: specs.OpMaskedEqual}
}

// neither are conditions of which one holds for each request (of 32 bits) but for these two.
// A rule can't compare an argument twice, so each is about one bit that isn't as in both, or
// about two in which they differ: the request isn't a where its second is b's, and not b
// where its first is a's. Going round those, there is such a place in all but a and b.
func neither(a, b uint64) (conditions []specs.LinuxSeccompArg) {
	var differ []uint64
	for i := range 32 {
		if bit := uint64(1) << i; (a^b)&bit != 0 {
			differ = append(differ, bit)
		} else {
			conditions = append(conditions, masked(bit, ^a))
		}
	}
	for i, bit := range differ {
		next := differ[(i+1)%len(differ)]
		conditions = append(conditions, masked(bit|next, a&bit|b&next))
	}
	return conditions
}
