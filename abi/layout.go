package abi

import "fmt"

// part is what a row is written with: a field, or a union of alternatives.
type part struct {
	f     Field
	align uint32
	arms  [][]part
}

func field(name string, size, align uint32, c Class) part {
	return part{f: Field{Name: name, Size: size, Class: c}, align: align}
}

// u32, u64, s32: plain numbers until a method says more.
func u32(name string) part { return field(name, 4, 4, Scalar) }
func u64(name string) part { return field(name, 8, 8, Scalar) }
func s32(name string) part { return field(name, 4, 4, Scalar) }

// name16 is a char[BPF_OBJ_NAME_LEN].
func name16(name string) part { return field(name, 16, 1, Name) }

// bytes is a fixed array of n bytes.
func bytes(name string, n uint32) part { return field(name, n, 1, Bytes) }

// union is a C union: every arm starts at the same offset.
func union(arms ...[]part) part { return part{arms: arms} }

// arm is one alternative of a union; its fields are named "name.field", or
// "field" where the arm has no name.
func arm(name string, parts ...part) []part {
	if name == "" {
		return parts
	}
	return prefixed(name, parts)
}

func prefixed(name string, parts []part) []part {
	out := make([]part, len(parts))
	for i, p := range parts {
		if p.arms != nil {
			arms := make([][]part, len(p.arms))
			for j := range p.arms {
				arms[j] = prefixed(name, p.arms[j])
			}
			p.arms = arms
		} else {
			p.f.Name = name + "." + p.f.Name
			if b := p.f.Buffer; b != nil {
				c := *b
				if c.Len.Count != "" {
					c.Len.Count = name + "." + c.Len.Count
				}
				if c.Len.Rec != "" {
					c.Len.Rec = name + "." + c.Len.Rec
				}
				p.f.Buffer = &c
			}
		}
		out[i] = p
	}
	return out
}

// whenAll adds a condition to every field of an arm.
func whenAll(parts []part, conds ...Cond) []part {
	out := make([]part, len(parts))
	for i, p := range parts {
		if p.arms != nil {
			arms := make([][]part, len(p.arms))
			for j := range p.arms {
				arms[j] = whenAll(p.arms[j], conds...)
			}
			p.arms = arms
		} else {
			p.f.When = and(p.f.When, conds)
		}
		out[i] = p
	}
	return out
}

// and is the conjunction of two disjunctions.
func and(a, b []Cond) []Cond {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	var out []Cond
	for _, x := range a {
		for _, y := range b {
			out = append(out, append(append(Cond{}, x...), y...))
		}
	}
	return out
}

func (p part) enum(v *Values) part  { p.f.Class, p.f.Values = Enum, v; return p }
func (p part) flags(v *Values) part { p.f.Class, p.f.Values = Flags, v; return p }
func (p part) fd(o Object) part     { p.f.Class, p.f.Object = FD, o; return p }
func (p part) id(o Object) part     { p.f.Class, p.f.Object = ID, o; return p }
func (p part) ifindex() part        { p.f.Class = Ifindex; return p }
func (p part) pid() part            { p.f.Class = PID; return p }
func (p part) uid() part            { p.f.Class = UID; return p }
func (p part) zeroIsNone() part     { p.f.ZeroIsNone = true; return p }
func (p part) out() part            { p.f.Dir = Out; return p }
func (p part) inout() part          { p.f.Dir = InOut; return p }
func (p part) maybe() part          { p.f.Maybe = true; return p }
func (p part) since(v string) part  { p.f.Since = v; return p }
func (p part) fact(n string) part   { p.f.Fact = n; return p }
func (p part) need(n string) part   { p.f.Need = n; return p }
func (p part) when(c ...Cond) part  { p.f.When = and(p.f.When, c); return p }

func (p part) ptr(d Dir, e Elem, l Len, w Wrote) part {
	p.f.Class = Pointer
	p.f.Buffer = &Buffer{Dir: d, Elem: e, Len: l, Wrote: w}
	return p
}

// in is a pointer that the kernel reads through.
func (p part) in(e Elem, l Len) part { return p.ptr(In, e, l, WroteNothing) }

// outBuf is a pointer that the kernel writes through.
func (p part) outBuf(e Elem, l Len, w Wrote) part { return p.ptr(Out, e, l, w) }

// path is a pointer to a path, which is looked up where the caller is.
func (p part) path(use Path) part {
	p = p.in(ElemString, Len{Elem: MaxPath, Max: MaxPath})
	p.f.Buffer.Path = use
	return p
}

// kept marks a path that the kernel keeps as it is given.
func (p part) kept() part {
	b := *p.f.Buffer
	b.Kept = true
	p.f.Buffer = &b
	return p
}

// shown marks text that is a path as seen from the caller's root.
func (p part) shown() part {
	b := *p.f.Buffer
	b.Path = PathShown
	p.f.Buffer = &b
	return p
}

// points sets the layout of the structure that the pointer points to.
func (p part) points(s *Layout) part {
	b := *p.f.Buffer
	b.Struct = s
	p.f.Buffer = &b
	return p
}

// all is the conjunction of tests; in, has, … make tests.
func all(t ...Test) Cond { return Cond(t) }

func is(f string, v ...uint64) Test    { return Test{Field: f, Op: OpIn, Values: v} }
func isNot(f string, v ...uint64) Test { return Test{Field: f, Op: OpNotIn, Values: v} }
func has(f string, bit uint64) Test    { return Test{Field: f, Op: OpHas, Values: []uint64{bit}} }
func hasNot(f string, bits uint64) Test {
	return Test{Field: f, Op: OpHasNot, Values: []uint64{bits}}
}
func set(f string) Test { return Test{Field: f, Op: OpNonZero} }

// layout computes the offsets as a C compiler does and resolves the names that
// conditions and length rules speak of. It panics on a name that isn't there:
// the table is wrong, and no test passes.
func layout(name string, parts []part) Layout {
	l := Layout{Name: name, index: map[string]int{}}
	end, align := place(&l, parts, 0)
	l.Size = roundUp(end, align)
	for i := range l.Fields {
		if _, dup := l.index[l.Fields[i].Name]; dup {
			panic(fmt.Sprintf("abi: %s has two fields %q", name, l.Fields[i].Name))
		}
		l.index[l.Fields[i].Name] = i
	}
	for i := range l.Fields {
		f := &l.Fields[i]
		for j := range l.Fields {
			g := &l.Fields[j]
			if f.Class != Pointer && g.Class == Pointer && f.Offset < g.Offset+g.Size && g.Offset < f.Offset+f.Size {
				f.Overlaps = true
			}
		}
		l.resolve(f.When)
		if b := f.Buffer; b != nil {
			l.must(b.Len.Count)
			l.must(b.Len.Rec)
		}
	}
	return l
}

func (l *Layout) must(name string) *Field {
	if name == "" {
		return nil
	}
	f := l.Field(name)
	if f == nil {
		panic(fmt.Sprintf("abi: %s has no field %q", l.Name, name))
	}
	return f
}

func (l *Layout) resolve(conds []Cond) {
	for i, c := range conds {
		c = append(Cond{}, c...) // rows share conditions: each gets its own offsets
		for j := range c {
			f := l.must(c[j].Field)
			c[j].offset, c[j].size = f.Offset, f.Size
		}
		conds[i] = c
	}
}

func place(l *Layout, parts []part, at uint32) (end, align uint32) {
	align = 1
	for _, p := range parts {
		if p.arms == nil {
			f := p.f
			at = roundUp(at, p.align)
			f.Offset = at
			f.When = append([]Cond{}, f.When...)
			l.Fields = append(l.Fields, f)
			at += f.Size
			align = max(align, p.align)
			continue
		}
		a := partsAlign(p.arms)
		at = roundUp(at, a)
		last := at
		for _, arm := range p.arms {
			e, _ := place(l, arm, at)
			last = max(last, roundUp(e, partsAlign([][]part{arm})))
		}
		at = roundUp(last, a)
		align = max(align, a)
	}
	return at, align
}

func partsAlign(arms [][]part) uint32 {
	a := uint32(1)
	for _, arm := range arms {
		for _, p := range arm {
			if p.arms != nil {
				a = max(a, partsAlign(p.arms))
			} else {
				a = max(a, p.align)
			}
		}
	}
	return a
}

func roundUp(n, to uint32) uint32 { return (n + to - 1) / to * to }

// row finishes a command's row.
func row(r Row, parts ...part) Row {
	r.Layout = layout(r.Kernel, parts)
	last := r.must(r.Last)
	r.must(r.TokenFlags)
	r.must(r.TokenFD)
	r.LastEnd = last.Offset + last.Size
	r.resolve(r.Net)
	r.resolve(r.CgroupNS)
	return r
}
