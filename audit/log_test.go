package audit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
)

// memory is a sink.
type memory struct {
	mu    sync.Mutex
	lines [][]byte
	err   error
	gate  chan struct{} // not nil: Write waits until it is closed
}

func (m *memory) String() string { return "memory" }
func (m *memory) Close() error   { return nil }

func (m *memory) Write(lines []Line) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gate != nil {
		<-m.gate
	}
	if m.err != nil {
		return m.err
	}
	for _, l := range lines {
		m.lines = append(m.lines, l.Text)
	}
	return nil
}

func (m *memory) entries(t *testing.T) (out []*Entry) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.lines {
		e, err := ParseLine(l)
		if err != nil {
			t.Fatalf("%v: %s", err, l)
		}
		out = append(out, e)
	}
	return out
}

// parts are a book with both sides.
type parts struct {
	t      testing.TB
	file   *os.File
	sink   *memory
	faults []error
	w      *Writer
}

func newParts(t testing.TB) *parts {
	f, err := Create()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	p := &parts{t: t, file: f, sink: &memory{}}
	p.w = p.writer()
	return p
}

func (p *parts) writer() *Writer {
	w, err := OpenWriter(int(p.file.Fd()))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(w.Close)
	return w
}

func (p *parts) log(programs *Programs) *Log {
	l, err := Start(Config{Workload: "run-1", Book: int(p.file.Fd()), Sink: p.sink, Programs: programs, Report: func(err error) { p.faults = append(p.faults, err) }})
	if err != nil {
		p.t.Fatal(err)
	}
	return l
}

func (p *parts) close(l *Log) {
	if err := l.Close(); err != nil {
		p.t.Error(err)
	}
}

var (
	aMap    = &samples[0].facts
	allowed = &policy.Decision{Verdict: policy.Allow, Cause: policy.ByRule, Rule: "small", Message: "small arrays"}
)

func note(p *Pad, f *facts.Facts, d *policy.Decision, e *Ended) {
	p.Begin()
	p.Decided(f, "test", d)
	p.Ended(e)
	p.Free()
}

// A worker that is killed after it has published a record, and before it has counted it,
// leaves neither a number twice nor one that nothing has.
func TestKilledBeforeCounting(t *testing.T) {
	for _, read := range []bool{false, true} { // whether the record is in the ring still
		p := newParts(t)
		w := p.w
		note(w.Pad(0), aMap, allowed, &Ended{Kind: abi.Map, ID: 1})
		note(w.Pad(0), aMap, allowed, &Ended{Kind: abi.Map, ID: 2})
		if read {
			p.close(p.log(nil))
		}
		w.book.seq = 1 // what was published isn't counted
		w = p.writer()
		note(w.Pad(0), aMap, allowed, &Ended{Kind: abi.Map, ID: 3})
		p.close(p.log(nil))
		got := p.sink.entries(t)
		if len(got) != 3 {
			t.Fatalf("read %v: %d records, wanted 3", read, len(got))
		}
		for i, e := range got {
			if e.Lost != 0 || e.Seq != uint64(i+1) || e.Record.Outcome.ID != uint64(i+1) {
				t.Errorf("read %v: record %d: %+v", read, i, e)
			}
		}
	}
	// Whatever a workload has written there that has taken its worker over.
	p := newParts(t)
	for i := range p.w.book.ring {
		p.w.book.ring[i] = byte(i * 7)
	}
	for _, head := range []uint64{1, 3, 100, ringSize, ringSize + 1, 1 << 63} {
		p.w.book.head, p.w.book.tail = head, 0
		p.writer()
	}
}

func TestLog(t *testing.T) {
	p := newParts(t)
	l := p.log(nil)
	pad := p.w.Pad(3)
	note(pad, aMap, allowed, &Ended{Kind: abi.Map, ID: 12})
	denied := &policy.Decision{Audit: policy.AuditNone}
	note(pad, aMap, denied, &Ended{})
	note(pad, aMap, &policy.Decision{Verdict: policy.Allow, Audit: policy.AuditNone}, &Ended{})
	l.Add(&Record{Time: time.Now(), Outcome: Outcome{ByDaemon: true}, Facts: facts.Facts{Command: "prog_query"}})
	p.close(l)
	got := p.sink.entries(t)
	if len(got) != 3 {
		t.Fatalf("got %d records, wanted 3", len(got))
	}
	e := got[0]
	if e.Workload != "run-1" || e.Seq != 1 || e.Facts.Map.Name != "m" || e.Record.Outcome.ID != 12 || e.Outcome != "ok" || time.Since(e.Time) > time.Minute || e.Attempt != 0 {
		t.Errorf("got %+v", e)
	}
	if got[1].Seq != 2 || got[1].Decision.Verdict != policy.Deny {
		t.Errorf("got %+v", got[1])
	}
	if d := got[2]; d.Seq != 0 || !d.Record.Outcome.ByDaemon || d.Workload != "run-1" {
		t.Errorf("the daemon's own: got %+v", d)
	}
	var none *Writer
	note(none.Pad(1), aMap, allowed, &Ended{}) // where no log is kept
}

// The reader wakes up for a record, and no record waits for long.
func TestWake(t *testing.T) {
	p := newParts(t)
	l := p.log(nil)
	for i := range 20 {
		note(p.w.Pad(0), aMap, allowed, &Ended{})
		for began := time.Now(); len(p.sink.entries(t)) <= i; time.Sleep(time.Millisecond) {
			if time.Since(began) > nap/2 {
				t.Fatal("it sleeps on")
			}
		}
	}
	p.close(l)
}

// A worker is killed, and the next goes on: what was decided is noted by that one.
func TestTakeover(t *testing.T) {
	p := newParts(t)
	pad := p.w.Pad(9)
	pad.Begin()
	pad.Decided(aMap, "test", allowed)
	full := *allowed
	full.Audit = policy.AuditFull
	other := p.w.Pad(10)
	other.Begin()
	other.Decided(&samples[2].facts, "test", &full)

	next := p.writer()
	pad = next.Pad(9)
	pad.Again() // answers with what was performed
	pad.Ended(&Ended{Resumed: true})
	pad.Ended(&Ended{Resumed: true}) // it is once in the log
	pad.Free()
	pad = next.Pad(10)
	pad.Again()
	pad.Ended(&Ended{Resumed: true})
	pad.Free()
	pad = next.Pad(11) // of this one nothing was noted
	pad.Again()
	pad.Ended(&Ended{Resumed: true})
	pad.Free()
	note(next.Pad(9), aMap, allowed, &Ended{})
	l := p.log(NewPrograms(t.TempDir()))
	p.close(l)
	got := p.sink.entries(t)
	if len(got) != 3 || got[0].Attempt != 2 || got[1].Attempt != 2 || got[2].Attempt != 0 || got[2].Seq != 3 {
		t.Fatalf("got %+v", got)
	}
	if why := got[1].Program.Why; !strings.Contains(why, "killed") {
		t.Errorf("the program's instructions: %q", why)
	}
}

// A daemon is killed, and the next one writes what the last one hadn't: nothing twice.
func TestNextReader(t *testing.T) {
	p := newParts(t)
	for round := range 5 {
		l := p.log(nil)
		for range 100 {
			note(p.w.Pad(round), aMap, allowed, &Ended{})
		}
		p.close(l)
		if round == 2 { // it was killed after it had written three more than it had noted
			b, unmap, err := open(int(p.file.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			b.tail -= 3 * b.head / 300
			unmap()
		}
	}
	got := p.sink.entries(t)
	for i, e := range got {
		if e.Seq != uint64(i+1) {
			t.Fatalf("record %d is %+v", i+1, e)
		}
	}
	if len(got) != 500 {
		t.Errorf("%d records of 500", len(got))
	}
}

// A flood: the writers never wait, and what is lost is counted, to the last one.
func TestFlood(t *testing.T) {
	p := newParts(t)
	p.sink.gate = make(chan struct{})
	l := p.log(nil)
	const threads, each = 4, 20_000
	var slowest time.Duration
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range threads {
		wg.Go(func() {
			pad := p.w.Pad(i)
			for range each {
				began := time.Now()
				note(pad, aMap, allowed, &Ended{})
				mu.Lock()
				slowest = max(slowest, time.Since(began))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	close(p.sink.gate)
	p.close(l)
	var there, lost uint64
	last := uint64(0)
	for _, e := range p.sink.entries(t) {
		if e.Lost > 0 {
			lost += e.Lost
			continue
		}
		there++
		if e.Seq <= last {
			t.Fatalf("record %d after %d", e.Seq, last)
		}
		last = e.Seq
	}
	if there+lost != threads*each || lost == 0 || there < 1000 {
		t.Errorf("%d records, %d lost, of %d", there, lost, threads*each)
	}
	t.Logf("%d records, %d lost; the slowest took %v", there, lost, slowest)
}

// A sink that fails is reported once, what it didn't take is counted, and it may work
// again.
func TestFailingSink(t *testing.T) {
	p := newParts(t)
	p.sink.err = errors.New("disk full")
	l := p.log(nil)
	for range 3 {
		note(p.w.Pad(0), aMap, allowed, &Ended{})
		time.Sleep(4 * rest)
	}
	p.sink.mu.Lock()
	p.sink.err = nil
	p.sink.mu.Unlock()
	note(p.w.Pad(0), aMap, allowed, &Ended{})
	p.close(l)
	got := p.sink.entries(t)
	if len(got) != 2 || got[0].Lost != 3 || got[1].Seq != 4 || len(p.faults) != 1 {
		t.Errorf("got %+v; reported %v", got, p.faults)
	}
}

// A sink that never returns doesn't keep the daemon from its end.
func TestStuckSink(t *testing.T) {
	p := newParts(t)
	p.sink.gate = make(chan struct{})
	l := p.log(nil)
	note(p.w.Pad(0), aMap, allowed, &Ended{})
	time.Sleep(4 * rest)
	if err := l.Close(); err == nil {
		t.Error("it was closed")
	}
	close(p.sink.gate)
	<-l.ended
	l.unmap()
}

// Whatever a worker writes into the book, the reader goes on, and says that something
// is wrong.
func TestHostile(t *testing.T) {
	good := bytesOf(&samples[0])
	framed := binary.LittleEndian.AppendUint32(nil, uint32(len(good)))
	for name, spoil := range map[string]func(b *book){
		"head far ahead":     func(b *book) { b.head = 1 << 60 },
		"head behind":        func(b *book) { b.tail, b.head = 100, 50 },
		"head at the end":    func(b *book) { b.head = 1<<64 - 1 },
		"length 0":           func(b *book) { b.head = 1000 },
		"length of all":      func(b *book) { le.PutUint32(b.ring[:], 0xffffffff); b.head = 1000 },
		"length beyond head": func(b *book) { le.PutUint32(b.ring[:], 1001); b.head = 1000 },
		"longest":            func(b *book) { le.PutUint32(b.ring[:], maxEntry); b.head = maxEntry + 4 },
		"too long":           func(b *book) { le.PutUint32(b.ring[:], maxEntry+1); b.head = maxEntry + 5 },
		"three bytes":        func(b *book) { b.head = 3 },
		"another layout": func(b *book) {
			copy(b.ring[:], framed)
			b.ring[4] ^= 1
			b.head = uint64(4 + len(good))
		},
		"noise": func(b *book) {
			for i := range b.ring {
				b.ring[i] = byte(rand.Uint32())
			}
			b.head = ringSize
		},
	} {
		p := newParts(t)
		b, unmap, err := open(int(p.file.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		spoil(b)
		l := p.log(nil)
		for began := time.Now(); len(p.sink.entries(t)) == 0; time.Sleep(time.Millisecond) {
			if time.Since(began) > 5*time.Second {
				t.Errorf("%s: nothing is said", name)
				break
			}
		}
		p.close(l)
		for _, e := range p.sink.entries(t) {
			if e.Lost == 0 {
				t.Errorf("%s: a record, %+v", name, e)
			}
		}
		unmap()
	}
}

// A worker says what it likes of whose record it is, and when and how often: the
// daemon knows better.
func TestMadeUp(t *testing.T) {
	p := newParts(t)
	b, unmap, err := open(int(p.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unmap()
	for range 3 { // number 7, of the year 2001
		good := bytesOf(&samples[0])
		at := b.copyIn(b.head, binary.LittleEndian.AppendUint32(nil, uint32(len(good))))
		b.head = b.copyIn(at, good)
	}
	p.close(p.log(nil))
	got := p.sink.entries(t)
	if len(got) != 2 || got[0].Lost != 6 || got[1].Seq != 7 || got[1].Workload != "run-1" || time.Since(got[1].Time) > time.Minute {
		t.Errorf("got %+v", got)
	}
}

func TestPrograms(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "programs")
	p := newParts(t)
	l := p.log(NewPrograms(dir))
	full := *allowed
	full.Audit = policy.AuditFull
	f := &facts.Facts{Command: "prog_load", Prog: facts.Prog{Type: "xdp"}}
	small, large := samples[2].ended.Insns, bytes.Repeat([]byte{0xb7, 0, 0, 0, 0, 0, 0, 0}, maxEntry/8)
	for _, insns := range [][]byte{small, small, large} {
		note(p.w.Pad(0), f, &full, &Ended{Kind: abi.Prog, Insns: insns})
	}
	note(p.w.Pad(0), f, allowed, &Ended{Kind: abi.Prog, Insns: small}) // not to be kept
	p.close(l)
	got := p.sink.entries(t)
	if len(got) != 4 || got[0].Program.Digest == "" || got[1].Program.Digest != got[0].Program.Digest || got[2].Program.Why == "" || got[3].Program.Digest+got[3].Program.Why != "" {
		t.Fatalf("got %+v", got)
	}
	insns, digest, err := NewPrograms(dir).Load(got[0].Program.Digest[:10])
	if err != nil || digest != got[0].Program.Digest || !bytes.Equal(insns, small) {
		t.Errorf("got %x of %q, %v", insns, digest, err)
	}
	if _, _, err := NewPrograms(dir).Load("0bad"); err == nil {
		t.Error("there is none")
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	tight := NewPrograms(dir)
	tight.most = int64(len(small))
	if _, err := tight.Keep([]byte("another one")); err == nil {
		t.Error("the directory is full")
	}
	if _, err := tight.Keep(small); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, digest+insnsSuffix), large, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := tight.Load(digest); err == nil {
		t.Error("a file that was changed passes")
	}
}

func lines(n int) (out []Line) {
	for i := range n {
		out = append(out, Line{Text: fmt.Appendf(nil, "line %d\n", i)})
	}
	return out
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	f := &File{Path: path, Size: 20, Keep: 2}
	other := &File{Path: path, Size: 20, Keep: 2} // of another process
	write := func(f *File, n int) {
		t.Helper()
		if err := f.Write(lines(n)); err != nil {
			t.Fatal(err)
		}
	}
	content := func(name string) int {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return -1
		}
		return bytes.Count(b, []byte("\n"))
	}
	for range 4 {
		write(f, 1)
		write(other, 1)
	}
	got := []int{content("log"), content("log.1"), content("log.2"), content("log.3")}
	if !slices.Equal(got, []int{2, 2, 2, -1}) {
		t.Errorf("got %v lines in the files", got)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	// As logrotate does.
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	write(f, 1)
	if content("log") != 1 {
		t.Error("it goes on in the file that was renamed")
	}
	os.Remove(path)
	write(other, 1)
	if content("log") != 1 {
		t.Error("it goes on in the file that was removed")
	}
	f.Close()
	other.Close()
}

// A process that is killed while it writes leaves half a record, which the one that
// takes over writes again.
func TestFileHalfLine(t *testing.T) {
	whole := newPrinter().lost(time.Unix(1, 0), "w", 1, "for a test")
	line := string(whole.Text)
	for _, c := range []struct{ there, want string }{
		{"", ""},
		{line, line},
		{line + line[:len(line)/2], line},
		{line + line[:len(line)-1], line},
		{line + line[:3], line}, // less than what tells whose it is
		{line[:len(line)/2], ""},
		{line + "somebody's", line + "somebody's\n"}, // other people's text is kept
		{strings.Repeat("x", 3*maxLine), strings.Repeat("x", 3*maxLine) + "\n"},
		{strings.Repeat(line, 500) + line[:20], strings.Repeat(line, 500)},
	} {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, []byte(c.there), 0o600); err != nil {
			t.Fatal(err)
		}
		f := NewFile(path)
		err := f.Write([]Line{whole})
		f.Close()
		got, rerr := os.ReadFile(path)
		if err != nil || rerr != nil || string(got) != c.want+line {
			t.Errorf("after %.80q: %v, %v, %.200q", c.there, err, rerr, got)
		}
	}
}

// Who may write to the directory doesn't choose another file.
func TestFileErrors(t *testing.T) {
	dir := t.TempDir()
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "dir")
	if err := os.Symlink(filepath.Join(dir, "secret"), link); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(fifo, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		link: "symbolic link", fifo: "give a file in it", "/dev/null": "no regular file", filepath.Join(dir, "no", "log"): "make the directory",
	} {
		err := Check(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, wanted %q", path, err, want)
		}
	}
	if err := Check(filepath.Join(dir, "log")); err != nil {
		t.Error(err)
	}
	for _, s := range []string{Stdout, Stderr} {
		if err := Check(s); err != nil {
			t.Error(err)
		}
	}
}

func TestFull(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Open(Stderr, f).Write(lines(1)); err == nil {
		t.Error("written to a full device")
	}
}

func BenchmarkRecord(b *testing.B) {
	p := newParts(b)
	l := p.log(nil)
	pad := p.w.Pad(0)
	d := *allowed
	b.ReportAllocs()
	for b.Loop() {
		pad.Begin()
		pad.Decided(aMap, "test", &d)
		pad.Ended(&Ended{Kind: abi.Map, ID: 12})
		pad.Free()
	}
	b.StopTimer()
	p.close(l)
}

// BenchmarkPaced notes a record every 30 µs, as calls come: the reader is at work, too.
func BenchmarkPaced(b *testing.B) {
	p := newParts(b)
	l := p.log(nil)
	pad := p.w.Pad(0)
	d := *allowed
	var took time.Duration
	for b.Loop() {
		began := time.Now()
		note(pad, aMap, &d, &Ended{Kind: abi.Map, ID: 12})
		now := time.Now()
		took += now.Sub(began)
		for time.Since(now) < 30*time.Microsecond {
		}
	}
	b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "ns/record")
	p.close(l)
}

func BenchmarkOff(b *testing.B) {
	var w *Writer
	pad := w.Pad(0)
	b.ReportAllocs()
	for b.Loop() {
		note(pad, aMap, allowed, &Ended{})
	}
}

func BenchmarkLine(b *testing.B) {
	raw := bytesOf(&samples[0])
	p := newPrinter()
	b.ReportAllocs()
	for b.Loop() {
		r, err := parse(raw)
		if err != nil {
			b.Fatal(err)
		}
		p.decision(r)
	}
}
