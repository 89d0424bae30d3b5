package filter

import "fmt"

// next is the jump target "the following instruction".
const next = ""

// assembler collects instructions whose jumps name labels. The zero value is
// ready for use.
type assembler struct {
	code   []symbolic
	labels map[string]int
}

type symbolic struct {
	op     uint16
	k      uint32
	jt, jf string
}

func (a *assembler) load(off uint32) { a.code = append(a.code, symbolic{op: opLoad, k: off}) }

func (a *assembler) ret(action uint32) { a.code = append(a.code, symbolic{op: opRet, k: action}) }

func (a *assembler) jump(op uint16, k uint32, jt, jf string) {
	a.code = append(a.code, symbolic{op: op, k: k, jt: jt, jf: jf})
}

// label names the place of the instruction that comes next.
func (a *assembler) label(name string) {
	if a.labels == nil {
		a.labels = make(map[string]int)
	}
	a.labels[name] = len(a.code)
}

// assemble resolves the labels. It establishes that every jump goes forward to an
// instruction of the program, at most 255 further, and that there are at most
// BPF_MAXINSNS.
func (a *assembler) assemble() ([]Instruction, error) {
	if len(a.code) > _BPF_MAXINSNS {
		return nil, fmt.Errorf("%d instructions, the kernel takes %d", len(a.code), _BPF_MAXINSNS)
	}
	p := make([]Instruction, len(a.code))
	for i, s := range a.code {
		jt, err := a.distance(i, s.jt)
		if err != nil {
			return nil, err
		}
		jf, err := a.distance(i, s.jf)
		if err != nil {
			return nil, err
		}
		p[i] = Instruction{Code: s.op, Jt: jt, Jf: jf, K: s.k}
	}
	return p, nil
}

// distance is how many instructions a jump from i to the label to skips.
func (a *assembler) distance(i int, to string) (uint8, error) {
	if to == next {
		return 0, nil
	}
	at, ok := a.labels[to]
	switch d := at - (i + 1); {
	case !ok:
		return 0, fmt.Errorf("instruction %d jumps to %q, which is nowhere", i, to)
	case d < 0 || at >= len(a.code):
		return 0, fmt.Errorf("instruction %d of %d jumps to %q at %d", i, len(a.code), to, at)
	case d > maxConditionalJump:
		return 0, fmt.Errorf("instruction %d skips %d to %q, a conditional jump at most %d", i, d, to, maxConditionalJump)
	default:
		return uint8(d), nil
	}
}
