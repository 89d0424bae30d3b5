package generate

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/bpfbroker/bpfbroker/abi"
)

// A request as text, for the corpus and between processes. What follows a # is for
// people: which fields of the attribute aren't zero.

// Text writes the request.
func (r *Request) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "call %s", r.Call)
	for i, name := range Slots(r.Row()) {
		fmt.Fprintf(&b, " %s=%#x", name, r.Args[i])
	}
	b.WriteByte('\n')
	if r.Seed != 0 {
		fmt.Fprintf(&b, "seed %d\n", r.Seed)
	}
	if r.Fill != 0 {
		fmt.Fprintf(&b, "fill %#x\n", r.Fill)
	}
	for _, s := range r.Steps {
		fmt.Fprintf(&b, "step %s\n", s)
	}
	for _, p := range r.Pieces {
		data := bytes.TrimRight(p.Data, "\x00")
		fmt.Fprintf(&b, "at %#x %s+%d\n", p.Addr, hex.EncodeToString(data), len(p.Data)-len(data))
	}
	for _, ref := range r.Refs {
		fmt.Fprintf(&b, "ref %#x %d %d %s\n", ref.At, ref.Size, ref.Add, ref.Name)
	}
	for _, line := range r.explain() {
		fmt.Fprintf(&b, "# %s\n", line)
	}
	b.WriteString("end\n")
	return b.String()
}

// explain lists the attribute's fields.
func (r *Request) explain() (lines []string) {
	at, size := r.Attr()
	if size == 0 {
		return nil
	}
	attr := r.Image().bytes(at, uint64(size))
	row := r.Row()
	for i := range row.Fields {
		f := &row.Fields[i]
		if f.Offset+f.Size > uint32(len(attr)) {
			continue
		}
		v := f.Uint(attr)
		ref := r.refAt(at + uint64(f.Offset))
		switch {
		case ref != nil:
			lines = append(lines, fmt.Sprintf("%s = %s %+d", f.Name, ref.Name, ref.Add))
		case f.Size > 8:
			if s := attr[f.Offset : f.Offset+f.Size]; strings.Trim(string(s), "\x00") != "" {
				lines = append(lines, fmt.Sprintf("%s = %q", f.Name, s))
			}
		case v == 0 || !f.Live(pad(attr, row.Size)):
		case f.Class == abi.Pointer:
			lines = append(lines, fmt.Sprintf("%s = %s", f.Name, Where(v)))
		case f.Class == abi.FD:
			lines = append(lines, fmt.Sprintf("%s = %d %s", f.Name, int32(v), NameOf(int(int32(v)))))
		case f.Class == abi.Enum:
			lines = append(lines, fmt.Sprintf("%s = %s", f.Name, f.Values.Name(v)))
		default:
			lines = append(lines, fmt.Sprintf("%s = %#x", f.Name, v))
		}
	}
	return lines
}

func (r *Request) refAt(addr uint64) *Ref {
	for i := range r.Refs {
		if r.Refs[i].At == addr {
			return &r.Refs[i]
		}
	}
	return nil
}

// Read reads requests until the end.
func Read(from io.Reader) (all []*Request, err error) {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	var r *Request
	for lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		if word == "" || word == "#" {
			continue
		}
		if r == nil && word != "call" {
			return nil, fmt.Errorf("%q outside of a request", lines.Text())
		}
		switch word {
		case "call":
			r, err = readCall(rest)
		case "seed":
			r.Seed, err = strconv.ParseUint(rest, 10, 64)
		case "fill":
			var v uint64
			v, err = strconv.ParseUint(rest, 0, 8)
			r.Fill = byte(v)
		case "step":
			if StepOf(rest) == nil {
				return nil, fmt.Errorf("no step %q", rest)
			}
			r.Steps = append(r.Steps, rest)
		case "at":
			var p Piece
			var data string
			if _, err = fmt.Sscanf(rest, "%v %s", &p.Addr, &data); err == nil {
				p.Data, err = readData(data)
			}
			r.Pieces = append(r.Pieces, p)
		case "ref":
			w := strings.SplitN(rest, " ", 4)
			var ref Ref
			if len(w) != 4 {
				return nil, fmt.Errorf("ref %q: want address, size, addend and name", rest)
			}
			_, err = fmt.Sscanf(strings.Join(w[:3], " "), "%v %d %d", &ref.At, &ref.Size, &ref.Add)
			ref.Name = w[3]
			r.Refs = append(r.Refs, ref)
		case "end":
			all, r = append(all, r), nil
		default:
			err = fmt.Errorf("unknown word")
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", lines.Text(), err)
		}
	}
	if r != nil {
		return nil, fmt.Errorf("the request for %s has no end", r.Call)
	}
	return all, lines.Err()
}

// readData reads hexadecimal digits and, behind a +, how many zero bytes follow.
func readData(text string) ([]byte, error) {
	digits, zeros, more := strings.Cut(text, "+")
	if !more {
		zeros = "0"
	}
	n, err := strconv.ParseUint(zeros, 10, 20)
	if err != nil {
		return nil, err
	}
	b, err := hex.DecodeString(digits)
	return append(b, make([]byte, n)...), err
}

func readCall(text string) (*Request, error) {
	words := strings.Fields(text)
	if len(words) == 0 || RowOf(words[0]) == nil {
		return nil, fmt.Errorf("no such call")
	}
	r := &Request{Call: words[0]}
	for i, name := range Slots(r.Row()) {
		if i+1 >= len(words) {
			return nil, fmt.Errorf("no argument %s", name)
		}
		value, ok := strings.CutPrefix(words[i+1], name+"=")
		v, err := strconv.ParseUint(value, 0, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("argument %q isn't %s", words[i+1], name)
		}
		r.Args = append(r.Args, v)
	}
	return r, nil
}

// Image is the arena's memory.
type Image []byte

// Image is the arena as the request wants it, but for its refs.
func (r *Request) Image() Image {
	m := make(Image, Size)
	for i := range m {
		m[i] = r.Fill
	}
	for _, p := range r.Pieces {
		m.Write(p.Addr, p.Data)
	}
	return m
}

// Write writes what of data is in the arena.
func (m Image) Write(addr uint64, data []byte) {
	for i, c := range data {
		if o := addr + uint64(i) - Base; o < Size {
			m[o] = c
		}
	}
}

// bytes are up to n bytes from addr, as far as they are in the arena.
func (m Image) bytes(addr, n uint64) []byte {
	if addr < Base || addr >= Base+Size {
		return nil
	}
	o := addr - Base
	return m[o:min(o+n, Size)]
}

func pad(b []byte, n uint32) []byte {
	if uint32(len(b)) >= n {
		return b
	}
	return append(b[:len(b):len(b)], make([]byte, n-uint32(len(b)))...)
}
