package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"

	"github.com/bpfbroker/bpfbroker/internal/generate"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Differential testing as a machine: requests that package generate makes are performed
// natively and brokered, in batches, and what they did is compared. See
// docs/results/differential.md.

const (
	corpus = "testdata/differential"
	batch  = 400 // requests of one pair of processes
)

// TestDifferentialCorpus repeats the requests that once showed a difference.
func TestDifferentialCorpus(t *testing.T) {
	needRoot(t)
	files, _ := filepath.Glob(filepath.Join(corpus, "*.txt"))
	var all []*generate.Request
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		some, err := generate.Read(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, some...)
	}
	for _, kind := range kinds(t) {
		native, brokered := performBoth(t, all, kind)
		for i, r := range all {
			if why := differs(r, native[i], brokered[i], kind); why != "" {
				t.Errorf("%s\n%s", why, r.Text())
			}
		}
	}
}

// TestDifferentialGenerated makes DIFFERENTIAL requests from a seed, SEED.
func TestDifferentialGenerated(t *testing.T) {
	needRoot(t)
	n := count("BPFBROKER_DIFFERENTIAL", 1000)
	seed := uint64(1)
	if os.Getenv("BPFBROKER_DIFFERENTIAL") != "" {
		seed = uint64(time.Now().UnixNano()) % 1e12
	}
	if s, err := strconv.ParseUint(os.Getenv("BPFBROKER_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("SEED=%d DIFFERENTIAL=%d", seed, n)
	shares := map[string]*share{}
	differences := 0
	kinds := kinds(t)
	for from := 0; from < n; from += batch {
		var all []*generate.Request
		for i := from; i < min(n, from+batch); i++ {
			all = append(all, generate.New(seed+uint64(i)))
		}
		kind := kinds[from/batch%len(kinds)]
		native, brokered := performBoth(t, all, kind)
		for i, r := range all {
			s := shares[r.Call]
			if s == nil {
				s = &share{}
				shares[r.Call] = s
			}
			s.count(native[i])
			why := differs(r, native[i], brokered[i], kind)
			if why == "" {
				continue
			}
			differences++
			if differences > 40 {
				t.Fatalf("too many differences")
			}
			small, why := minimise(t, r, why, kind)
			t.Errorf("SEED=%d DIFFERENTIAL=1 (%s)\n%s%s", r.Seed, kind, why, small.Text())
			if os.Getenv("BPFBROKER_DIFFERENTIAL") != "" {
				keep(t, small)
			}
		}
	}
	report(t, shares, n, differences)
}

// share counts how many requests succeed natively.
type share struct{ all, ok int }

func (s *share) count(o deed) {
	s.all++
	if o.OK {
		s.ok++
	}
}

// neverSucceed are calls that fail on this kernel whatever they ask for.
var neverSucceed = map[string]string{
	"token_create": "there are no tokens in the initial user namespace, in which the native process is",
}

func report(t *testing.T, shares map[string]*share, n, differences int) {
	for _, call := range generate.Calls() {
		s := shares[call]
		if s == nil {
			continue
		}
		percent := 100 * float64(s.ok) / float64(s.all)
		t.Logf("%-22s %6d requests, %5.1f %% succeed natively", call, s.all, percent)
		if percent <= 30 && s.all >= 20 && neverSucceed[call] == "" {
			t.Errorf("%s: only %.1f %% succeed: that proves little", call, percent)
		}
	}
	t.Logf("%d requests, %d differences", n, differences)
}

// performBoth performs requests natively and brokered.
func performBoth(t *testing.T, all []*generate.Request, kind string) (native, brokered []deed) {
	t.Helper()
	var in strings.Builder
	in.WriteString(kernelValues(t))
	for _, r := range all {
		in.WriteString(r.Text())
	}
	run := func(c *exec.Cmd) (out []deed) {
		c.Env = append(c.Env, "GODEBUG=asyncpreemptoff=1")
		c.Stdin = strings.NewReader(in.String())
		var stdout, stderr bytes.Buffer
		c.Stdout, c.Stderr = &stdout, &stderr
		err := c.Run()
		for d := json.NewDecoder(&stdout); ; {
			var o deed
			if d.Decode(&o) != nil {
				break
			}
			out = append(out, o)
		}
		if err != nil || len(out) != len(all) {
			after := ""
			if len(out) < len(all) {
				after = all[len(out)].Text()
			}
			t.Fatalf("%v: %v after %d of %d requests\n%s\n%s", c.Args[:4], err, len(out), len(all), stderr.String(), after)
		}
		return out
	}
	return run(natively(probe("generated"))), run(perBrokered(kind))
}

func perBrokered(kind string) *exec.Cmd {
	return brokeredKind(probe("generated"), kind)
}

func brokeredKind(c *exec.Cmd, kind string) *exec.Cmd {
	return brokered(c, "--net=private", "--worker="+kind)
}

// kernelValues are the numbers that package generate asks for by name.
func kernelValues(t *testing.T) string {
	t.Helper()
	if valuesText != "" {
		return valuesText
	}
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, v := range generate.Values() {
		w := strings.Fields(string(v))
		n := uint64(0)
		switch w[0] {
		case "type":
			types, _ := spec.AnyTypesByName(w[2])
			for _, typ := range types {
				_, isFunc := typ.(*btf.Func)
				_, isTypedef := typ.(*btf.Typedef)
				if id, err := spec.TypeID(typ); err == nil && (w[1] == "func" && isFunc || w[1] == "typedef" && isTypedef) {
					n = uint64(id)
				}
			}
		case "event":
			typ, _ := sys.EventType(w[1])
			n = uint64(typ)
		case "tracepoint":
			n = tracepointID(t, w[1])
		}
		if n == 0 {
			t.Logf("this kernel has no %s", v)
		}
		fmt.Fprintf(&b, "%d %s\n", n, v)
	}
	valuesText = b.String() + "\n"
	return valuesText
}

var valuesText string

// tracepointID is a tracepoint's number, looked up in a tracefs mounted for that.
func tracepointID(t *testing.T, name string) uint64 {
	t.Helper()
	out, err := exec.Command("unshare", "--mount", "sh", "-c", `mount -t tracefs tracefs /mnt && cat /mnt/events/"$0"/id`, name).Output()
	if err != nil {
		t.Logf("tracepoint %s: %v", name, err)
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 64)
	return n
}

// differs says what differs that shouldn't, "" if nothing does.
func differs(r *generate.Request, native, brokered deed, kind string) string {
	if native.Text == brokered.Text || explained(r, native, brokered, kind) != "" {
		return ""
	}
	return fmt.Sprintf("natively:\n%sbrokered:\n%s", indent(native.Text), indent(brokered.Text))
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n  ") + "\n"
}

// minimise finds a smaller request that differs as well.
func minimise(t *testing.T, r *generate.Request, why, kind string) (*generate.Request, string) {
	for range 40 {
		all := r.Smaller()
		if len(all) == 0 {
			break
		}
		native, brokered := performBoth(t, all, kind)
		i := slices.IndexFunc(all, func(c *generate.Request) bool {
			i := slices.Index(all, c)
			return differs(c, native[i], brokered[i], kind) != ""
		})
		if i < 0 {
			break
		}
		r, why = all[i], differs(all[i], native[i], brokered[i], kind)
	}
	return r, why
}

// keep puts a request into the corpus.
func keep(t *testing.T, r *generate.Request) {
	if err := os.MkdirAll(corpus, 0o755); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(corpus, fmt.Sprintf("%s-%d.txt", r.Call, r.Seed))
	if err := os.WriteFile(name, []byte(r.Text()), 0o644); err != nil {
		t.Fatal(err)
	}
}
