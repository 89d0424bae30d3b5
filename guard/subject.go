package guard

import (
	"encoding/binary"
	"slices"
)

// Some programs look at no task: what they do depends on when they run alone. Those that a
// tracer has called by a clock, to print what it has counted, are such; a guard would keep
// them from running as long as the workload sleeps.

// maxClocked is how many instructions Subjectless goes through. Such programs are small.
const maxClocked = 4096

// subjectless are the helpers that tell nothing of the task that runs.
var subjectless = []string{
	"bpf_map_lookup_elem", "bpf_map_update_elem", "bpf_map_delete_elem", "bpf_map_push_elem", "bpf_map_pop_elem", "bpf_map_peek_elem",
	"bpf_map_lookup_percpu_elem", "bpf_ktime_get_ns", "bpf_ktime_get_boot_ns", "bpf_ktime_get_coarse_ns", "bpf_ktime_get_tai_ns", "bpf_jiffies64",
	"bpf_get_smp_processor_id", "bpf_get_numa_node_id", "bpf_get_prandom_u32", "bpf_perf_event_output",
	"bpf_ringbuf_output", "bpf_ringbuf_reserve", "bpf_ringbuf_submit", "bpf_ringbuf_discard", "bpf_ringbuf_query",
	"bpf_strncmp", "bpf_strtol", "bpf_strtoul",
}

// Subjectless says whether a program with these helpers, all that it calls, looks at no
// task: it reads nothing of its context, where registers are, and hands it on to
// bpf_perf_event_output alone, which takes from it what the event says that it records.
// For what it can't tell the answer is no.
func Subjectless(insns []byte, helpers []string) bool {
	n := len(insns) / InsnSize
	if n == 0 || n > maxClocked || slices.ContainsFunc(helpers, func(h string) bool { return !slices.Contains(subjectless, h) }) {
		return false
	}
	w := walk{insns: insns, before: make([]holders, n), seen: make([]bool, n)}
	w.to(0, 1<<1) // the context is in r1
	for len(w.next) > 0 {
		at := w.next[len(w.next)-1]
		w.next = w.next[:len(w.next)-1]
		if !w.step(at, w.before[at]) {
			return false
		}
	}
	return true
}

// holders says which registers may hold the context, or a pointer made of it; and whether
// the stack may.
type holders uint16

const (
	onStack  holders = 1 << 11
	framePtr         = 10
	args             = 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5
)

func (h holders) has(reg uint8) bool { return h>>reg&1 != 0 }

func (h *holders) set(reg uint8, does bool) {
	*h &^= 1 << reg
	if does {
		*h |= 1 << reg
	}
}

// walk goes through the instructions until nothing is new.
type walk struct {
	insns  []byte
	before []holders
	seen   []bool
	next   []int
}

// to says what may hold the context before the instruction at; false: there is none.
func (w *walk) to(at int, h holders) bool {
	if at < 0 || at >= len(w.before) {
		return false
	}
	if all := w.before[at] | h; all != w.before[at] || !w.seen[at] {
		w.before[at], w.seen[at] = all, true
		w.next = append(w.next, at)
	}
	return true
}

// step is what an instruction does; false: it looks at the context, or may.
func (w *walk) step(at int, h holders) bool {
	i := w.insns[at*InsnSize:][:InsnSize]
	code, dst, src := i[0], i[1]&15, i[1]>>4
	off, imm := int(int16(binary.NativeEndian.Uint16(i[2:]))), int32(binary.NativeEndian.Uint32(i[4:]))
	if dst > framePtr {
		return false
	}
	const register = 8 // BPF_X
	switch op := code & 0xf0; code & 7 {
	case 0: // BPF_LD
		const wide, function = 0x18, 4 // BPF_PSEUDO_FUNC
		if code != wide || src == function {
			return false
		}
		h.set(dst, false)
		return w.to(at+2, h)
	case 1: // BPF_LDX
		if src > framePtr || h.has(src) {
			return false
		}
		h.set(dst, h&onStack != 0)
	case 2: // BPF_ST
		if h.has(dst) {
			return false
		}
	case 3: // BPF_STX
		const memory = 0x60 // BPF_MEM: else it is atomic, and may load
		if src > framePtr || h.has(dst) || code&0xe0 != memory && (h&onStack != 0 || h.has(src)) {
			return false
		}
		if h.has(src) {
			if dst != framePtr {
				return false
			}
			h |= onStack
		}
	case 4, 7: // BPF_ALU, BPF_ALU64
		const mov = 0xb0
		if src > framePtr {
			return false
		}
		of := code&register != 0 && h.has(src)
		h.set(dst, of || op != mov && h.has(dst))
	default: // BPF_JMP, BPF_JMP32
		const always, call, exit = 0x00, 0x80, 0x90
		switch {
		case op == exit:
			return true
		case op == call:
			const output = 25 // BPF_FUNC_perf_event_output
			if src != 0 || code&7 != 5 || code&register != 0 {
				return false // a function of the program's or the kernel's
			}
			if held := h & args; held != 0 && (held != 1<<1 || imm != output) {
				return false
			}
			h &^= args | 1
		case op == always && code&7 == 6: // gotol
			return w.to(at+1+int(imm), h)
		case op == always && code&register == 0:
			return w.to(at+1+off, h)
		case op == always:
			return false
		default:
			if !w.to(at+1+off, h) {
				return false
			}
		}
	}
	return w.to(at+1, h)
}
