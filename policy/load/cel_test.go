package load_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"cel.dev/cel-go/cel"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/policy/load"
)

// inCEL evaluates expressions with cel-go itself.
type inCEL struct{ env *cel.Env }

func newCEL(t testing.TB) inCEL {
	var opts []cel.EnvOption
	for _, f := range facts.Table {
		typ := map[facts.Type]*cel.Type{facts.String: cel.StringType, facts.Int: cel.IntType, facts.Bool: cel.BoolType,
			facts.Strings: cel.ListType(cel.StringType), facts.Ints: cel.ListType(cel.IntType), facts.Texts: cel.MapType(cel.StringType, cel.StringType)}[f.Type]
		opts = append(opts, cel.Variable(f.Name, typ))
	}
	env, err := cel.NewEnv(opts...)
	if err != nil {
		t.Fatal(err)
	}
	return inCEL{env}
}

// eval returns "true", "false" or "error".
func (c inCEL) eval(t testing.TB, text string, f *facts.Facts) string {
	ast, issues := c.env.Compile(text)
	if issues.Err() != nil {
		t.Fatalf("%s: %v", text, issues.Err())
	}
	p, err := c.env.Program(ast)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	for _, x := range facts.Table {
		switch v := x.At(f).(type) {
		case *string:
			values[x.Name] = *v
		case *int64:
			values[x.Name] = *v
		case *bool:
			values[x.Name] = *v
		case *[]string:
			values[x.Name] = append([]string{}, *v...)
		case *[]int64:
			values[x.Name] = append([]int64{}, *v...)
		case *map[string]string:
			values[x.Name] = *v
		}
	}
	out, _, err := p.Eval(values)
	if err != nil {
		return "error"
	}
	return fmt.Sprint(out.Value())
}

func inPolicy(t testing.TB, text string) *policy.Rules {
	p, err := load.Parse("p.yaml", []byte(`{apiVersion: bpfbroker/v1alpha1, kind: Policy, metadata: {name: test}, spec: {rules: [{name: r, commands: [prog_load], verdict: native, when: `+strconv.Quote(text)+`}]}}`))
	if err != nil {
		if strings.Contains(err.Error(), "never true") || strings.Contains(err.Error(), "has no value") {
			return nil
		}
		t.Fatalf("%s\n%v", text, err)
	}
	// And what another process would decide.
	data, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if p, err = policy.Decode(data); err != nil {
		t.Fatal(err)
	}
	return p
}

func decided(d policy.Decision) string {
	switch {
	case d.Cause == policy.ByError:
		return "error"
	case d.Verdict == policy.Native:
		return "true"
	}
	return "false"
}

// TestMeaning compares what expressions mean to us with what they mean to cel-go.
func TestMeaning(t *testing.T) {
	c := newCEL(t)
	f := facts.Facts{Command: "prog_load"}
	f.Prog.Name, f.Prog.License, f.Prog.Insns, f.Prog.Sleepable = "ünïcode", "GPL", 7, true
	f.Prog.Helpers = []string{"bpf_loop", "bpf_map_lookup_elem"}
	f.Prog.MapIDs = []int64{1, 2, 3, 3}
	f.Workload.Labels = map[string]string{"app": "x", "a.b": "y"}
	for _, text := range []string{
		`prog.name.size() == 7`, `size(prog.name) == 9`, `prog.helpers.size() == 2 && size(prog.map_ids) == 4 && size(workload.labels) == 2`,
		`prog.name < "z"`, `"a" < "B"`, `prog.insns / 2 == 3 && prog.insns % 2 == 1`, `-prog.insns / 2 == -3 && -prog.insns % 2 == -1`,
		`prog.insns / 0 == 1`, `prog.insns % 0 == 1`, `prog.insns / 0 == 1 || true`, `true || prog.insns / 0 == 1`,
		`prog.insns / 0 == 1 && prog.insns == 8`, `prog.insns / 0 == 1 && prog.insns == 7`, `!(prog.insns / 0 == 1)`,
		`prog.insns * 9223372036854775807 == 1`, `prog.insns + 9223372036854775807 == 1`, `-9223372036854775807 - prog.insns == 1`,
		`(-9223372036854775807 - 1) / (prog.insns - 8) == 1`, `-(-9223372036854775807 - prog.insns + 6) == 1`, `(-9223372036854775807 - 1) * (prog.insns - 8) == 1`,
		`(prog.insns - 8) * (-9223372036854775807 - 1) == 1`, `(-9223372036854775807 - 1) % (prog.insns - 8) == 0`,
		`prog.map_ids[1] == 2`, `prog.map_ids[4] == 2`, `prog.map_ids[-1] == 2`, `prog.helpers[0] == "bpf_loop"`,
		`workload.labels.app == "x"`, `workload.labels["a.b"] == "y"`, `workload.labels.nope == "x"`, `has(workload.labels.app)`, `has(workload.labels.nope)`,
		`"app" in workload.labels`, `"nope" in workload.labels`, `!has(workload.labels.nope) || workload.labels.nope == "x"`,
		`prog.helpers.all(h, h.startsWith("bpf_"))`, `prog.helpers.exists(h, h.endsWith("elem"))`, `prog.helpers.exists_one(h, h.contains("map"))`,
		`prog.map_ids.exists_one(i, i == 3)`, `prog.map_ids.filter(i, i > 1) == [2, 3, 3]`, `prog.map_ids.map(i, i * 2) == [2, 4, 6, 6]`,
		`prog.map_ids.map(i, i > 2, i + 1) == [4, 4]`, `prog.helpers.map(h, h + "!")[0] == "bpf_loop!"`, `prog.helpers.map(h, size(h)) == [8, 19]`,
		`prog.kfuncs.all(k, false)`, `prog.kfuncs.exists(k, true)`, `prog.kfuncs == []`, `prog.map_ids != []`, `[] + prog.map_ids == prog.map_ids`,
		`prog.map_ids.all(i, 6 / (i - 1) > 0)`, `prog.map_ids.all(i, 6 / (i - 1) > 9)`, `prog.map_ids.exists(i, 6 / (i - 1) > 0)`, `prog.map_ids.exists(i, 6 / (i - 1) > 9)`,
		`prog.map_ids.exists_one(i, 6 / (i - 1) > 5)`, `prog.map_ids.filter(i, 6 / (i - 1) > 0) == [2]`,
		`prog.map_ids.all(i, prog.helpers.exists(h, size(h) > i))`, `[prog.insns, 2] == [7, 2]`, `prog.insns in [prog.insns + 0, 3]`, `"x" in workload.argv`,
		`prog.sleepable ? prog.insns == 7 : prog.insns == 8`, `(prog.sleepable ? "a" : "b") == "a"`, `(prog.sleepable ? [1] : [2])[0] == 1`,
		`prog.name.matches("^ü.*e$")`, `prog.name.matches("code")`, `"abc".matches("^b")`, `prog.sleepable == true`, `prog.sleepable != prog.signed`,
		`prog.license + "x" == "GPLx"`, `prog.helpers + ["x"] == ["bpf_loop", "bpf_map_lookup_elem", "x"]`, `'a' == "a" && r'\d' == "\\d"`,
		`!(prog.insns > 3 && prog.insns < 9)`, `prog.insns >= 7 && prog.insns <= 7`, `0x10 == 16 && prog.insns == 7`,
		"prog.insns == 7 // comment\n && true",
	} {
		want := c.eval(t, text, &f)
		p := inPolicy(t, text)
		if p == nil {
			if want == "true" {
				t.Errorf("%s: refused; CEL says %s", text, want)
			}
			continue
		}
		if d := p.Decide(&f); decided(d) != want {
			t.Errorf("%s: got %s (%s), CEL says %s", text, decided(d), d.Message, want)
		}
	}
}

// gen makes random expressions.
type gen struct {
	*rand.Rand
	loops []string // "s0", "n1"
}

func (g *gen) pick(s ...string) string { return s[g.IntN(len(s))] }

func (g *gen) bools(depth int) string {
	if depth == 0 {
		return g.pick("prog.sleepable", "prog.signed", "true", "false", `(prog.type == "xdp")`)
	}
	d := depth - 1
	switch g.IntN(14) {
	case 0, 1:
		return "(" + g.bools(d) + " && " + g.bools(d) + ")"
	case 2, 3:
		return "(" + g.bools(d) + " || " + g.bools(d) + ")"
	case 4:
		return "!" + g.bools(d)
	case 5:
		return "(" + g.bools(d) + " ? " + g.bools(d) + " : " + g.bools(d) + ")"
	case 6:
		return "(" + g.ints(d) + g.pick(" == ", " != ", " < ", " <= ", " > ", " >= ") + g.ints(d) + ")"
	case 7:
		return "(" + g.strs(d) + g.pick(" == ", " != ", " < ", " >= ") + g.strs(d) + ")"
	case 8:
		return g.strs(d) + "." + g.pick("startsWith", "endsWith", "contains") + "(" + g.strs(d) + ")"
	case 9:
		return "(" + g.strs(d) + " in " + g.strings(d) + ")"
	case 10:
		return "(" + g.ints(d) + " in " + g.intss(d) + ")"
	case 11:
		return "(" + g.strings(d) + g.pick(" == ", " != ") + g.strings(d) + ")"
	}
	if len(g.loops) == 2 {
		return g.bools(0)
	}
	macro := g.pick("all", "exists", "exists_one")
	if g.IntN(2) == 0 {
		return g.loop("s", g.strings(d), macro, d, g.bools)
	}
	return g.loop("n", g.intss(d), macro, d, g.bools)
}

func (g *gen) loop(kind, list, macro string, depth int, body func(int) string) string {
	v := kind + strconv.Itoa(len(g.loops))
	g.loops = append(g.loops, v)
	defer func() { g.loops = g.loops[:len(g.loops)-1] }()
	return list + "." + macro + "(" + v + ", " + body(depth) + ")"
}

func (g *gen) ints(depth int) string {
	if depth == 0 {
		for _, v := range g.loops {
			if v[0] == 'n' && g.IntN(2) == 0 {
				return v
			}
		}
		return g.pick("prog.insns", "prog.target_prog", "0", "1", "3", "9223372036854775807")
	}
	d := depth - 1
	switch g.IntN(5) {
	case 0:
		return "size(" + g.strs(d) + ")"
	case 1:
		return "size(" + g.intss(d) + ")"
	case 2:
		return g.intss(d) + "[" + g.ints(d) + "]"
	case 3:
		return "(" + g.bools(d) + " ? " + g.ints(d) + " : " + g.ints(d) + ")"
	}
	return "(" + g.ints(d) + g.pick(" + ", " - ", " * ", " / ", " % ") + g.ints(d) + ")"
}

func (g *gen) strs(depth int) string {
	if depth == 0 {
		for _, v := range g.loops {
			if v[0] == 's' && g.IntN(2) == 0 {
				return v
			}
		}
		return g.pick("prog.name", "prog.license", "workload.comm", `"a"`, `"bb"`, `""`, "workload.labels.app")
	}
	d := depth - 1
	switch g.IntN(3) {
	case 0:
		return "(" + g.strs(d) + " + " + g.strs(d) + ")"
	case 1:
		return "(" + g.bools(d) + " ? " + g.strs(d) + " : " + g.strs(d) + ")"
	}
	return g.strings(d) + "[" + g.ints(d) + "]"
}

func (g *gen) strings(depth int) string {
	if depth == 0 || len(g.loops) == 2 {
		return g.pick("workload.argv", `["a", "bb"]`, `["a", prog.name]`)
	}
	d := depth - 1
	switch g.IntN(4) {
	case 0:
		return "(" + g.strings(d) + " + " + g.strings(d) + ")"
	case 1:
		return g.loop("s", g.strings(d), "filter", d, g.bools)
	case 2:
		return g.loop("s", g.strings(d), "map", d, g.strs)
	}
	return g.loop("n", g.intss(d), "map", d, g.strs)
}

func (g *gen) intss(depth int) string {
	if depth == 0 || len(g.loops) == 2 {
		return g.pick("prog.map_ids", "[1, 2]", "[prog.insns, 0]")
	}
	d := depth - 1
	switch g.IntN(3) {
	case 0:
		return "(" + g.intss(d) + " + " + g.intss(d) + ")"
	case 1:
		return g.loop("n", g.intss(d), "filter", d, g.bools)
	}
	return g.loop("s", g.strings(d), "map", d, g.ints)
}

// TestMeaningRandom does the same with random expressions.
func TestMeaningRandom(t *testing.T) {
	c := newCEL(t)
	n, seed := 3000, uint64(1)
	if testing.Short() {
		n = 300
	}
	r := rand.New(rand.NewPCG(seed, 0))
	outcomes := map[string]int{}
	for range n {
		g := &gen{Rand: r}
		text := g.bools(1 + r.IntN(4))
		var f facts.Facts
		f.Command = "prog_load"
		f.Prog.Type, f.Prog.Name, f.Prog.License = g.pick("xdp", "kprobe"), g.pick("a", "", "bbb"), g.pick("GPL", "a")
		f.Prog.Insns, f.Prog.Target.Prog = int64(r.IntN(4)), int64(r.IntN(2))
		f.Prog.Sleepable, f.Prog.Signed = r.IntN(2) == 0, r.IntN(2) == 0
		for range r.IntN(3) {
			f.Prog.MapIDs = append(f.Prog.MapIDs, int64(r.IntN(3)))
			f.Workload.Argv = append(f.Workload.Argv, g.pick("a", "bb", "c"))
		}
		if r.IntN(2) == 0 {
			f.Workload.Labels = map[string]string{"app": "a"}
		}
		if len(text) > 3000 {
			continue
		}
		p, err := parseOne(text)
		if err != nil {
			// What we refuse on purpose.
			for _, known := range []string{"never true", "has no value", "could cost too much", "nested more than", "twice", "no program type", "nothing is in"} {
				if strings.Contains(err.Error(), known) {
					err = nil
					break
				}
			}
			if err != nil {
				t.Errorf("%s\n%v", text, err)
			}
			outcomes["refused"]++
			continue
		}
		want, d := c.eval(t, text, &f), p.Decide(&f)
		outcomes[want]++
		if decided(d) != want {
			t.Errorf("%s\n%+v: got %s (%s), CEL says %s", text, f, decided(d), d.Message, want)
		}
	}
	t.Log(outcomes)
	if outcomes["true"] < n/10 || outcomes["false"] < n/10 || outcomes["error"] < n/50 {
		t.Errorf("a poor choice of expressions: %v", outcomes)
	}
}

func parseOne(text string) (*policy.Rules, error) {
	return load.Parse("p.yaml", []byte(`{apiVersion: bpfbroker/v1alpha1, kind: Policy, metadata: {name: test}, spec: {rules: [{name: r, commands: [prog_load], verdict: native, when: `+strconv.Quote(text)+`}]}}`))
}
