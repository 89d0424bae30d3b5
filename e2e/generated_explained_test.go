package e2e

import (
	"slices"
	"strings"

	"github.com/bpfbroker/bpfbroker/internal/generate"
	"github.com/bpfbroker/bpfbroker/worker"
)

// explanations are differences that are meant to be, each with its reason; docs/limits.md
// has them for users.
var explanations = []struct {
	why  string
	when func(r *generate.Request, native, brokered deed, kind string) bool
}{
	{"objects of others can't be opened by id, and are passed over", func(r *generate.Request, native, brokered deed, kind string) bool {
		return native.Foreign && (strings.HasSuffix(r.Call, "_by_id") || strings.HasSuffix(r.Call, "_next_id"))
	}},
	{"a bpffs that delegates nothing has no tokens; root in the initial user namespace is told so by another errno", func(r *generate.Request, native, brokered deed, kind string) bool {
		return r.Call == "token_create" && strings.HasPrefix(native.Text, "returns EOPNOTSUPP")
	}},
	{"ioctls of a perf event on what is none are ENOTTY, and other files may say otherwise", func(r *generate.Request, native, brokered deed, kind string) bool {
		return strings.HasPrefix(r.Call, "perf_event_") && r.Call != "perf_event_open" && !native.OK && brokered.Text == "returns ENOTTY\n"
	}},
	{"how much of an info the kernel had filled before it ran into a bad pointer isn't known", func(r *generate.Request, native, brokered deed, kind string) bool {
		const fault = "returns EFAULT\n"
		return r.Call == "obj_get_info_by_fd" && strings.HasPrefix(native.Text, fault) && strings.HasPrefix(brokered.Text, fault)
	}},
	{"that an info's output can't be written is found after the call, in which the kernel may find something else", func(r *generate.Request, native, brokered deed, kind string) bool {
		return r.Call == "obj_get_info_by_fd" && strings.HasPrefix(native.Text, "returns EFAULT\n") && !brokered.OK
	}},
	{"the ids before and after one of the process's own, and that of its lower bytes, are anybody's", func(r *generate.Request, native, brokered deed, kind string) bool {
		_, size := r.Attr()
		next := strings.HasSuffix(r.Call, "_next_id") // which begins behind the one before
		return (next || strings.HasSuffix(r.Call, "_by_id")) && slices.ContainsFunc(r.Refs, func(f generate.Ref) bool {
			return strings.HasPrefix(f.Name, "id ") && (size < f.Size || f.Add != 0 && !(next && f.Add == -1))
		})
	}},
	{"a log with BPF_LOG_STATS has times in it, which are longer or shorter", func(r *generate.Request, native, brokered deed, kind string) bool {
		const stats = 4
		return r.Call == "prog_load" && r.Field("log_level")&stats != 0 && native.OK == brokered.OK
	}},
	{"the kernel writes several arrays at once, and we one after the other: what there is before a bad pointer differs", func(r *generate.Request, native, brokered deed, kind string) bool {
		return r.Call == "prog_query" && strings.HasPrefix(native.Text, "returns EFAULT\n") && strings.HasPrefix(brokered.Text, "returns EFAULT\n")
	}},
	{"two numbers are those of the Go runtime's poller in a worker", func(r *generate.Request, native, brokered deed, kind string) bool {
		return !native.OK && brokered.Text == "returns EMFILE\n"
	}},
	{"the kernel is told of no more func_info than there may be functions, and doesn't ask for memory for more", func(r *generate.Request, native, brokered deed, kind string) bool {
		return r.Call == "prog_load" && strings.HasPrefix(native.Text, "returns ENOMEM\n") && strings.HasPrefix(brokered.Text, "returns EFAULT\n")
	}},
	{"no event sends SIGTRAP to another process's thread; the kernel looks at other things first", func(r *generate.Request, native, brokered deed, kind string) bool {
		return r.Call == "perf_event_open" && !native.OK && brokered.Text == "returns EACCES\n"
	}},
	{"the process before this one, and that of the lower bytes of its id, is another natively, or there is none", func(r *generate.Request, native, brokered deed, kind string) bool {
		_, size := r.Attr()
		return !native.OK && !brokered.OK && slices.ContainsFunc(r.Refs, func(f generate.Ref) bool { return f.Name == "pid" && (f.Add != 0 || size < f.Size) })
	}},
	{"BPF_F_ZERO_SEED, map_ifindex, prog_ifindex take a capability that a token worker doesn't have", func(r *generate.Request, native, brokered deed, kind string) bool {
		return kind == string(worker.Token) && (r.Call == "map_create" || r.Call == "prog_load") && r.HostAdmin()
	}},
}

func explained(r *generate.Request, native, brokered deed, kind string) string {
	for _, e := range explanations {
		if e.when(r, native, brokered, kind) {
			return e.why
		}
	}
	return ""
}
