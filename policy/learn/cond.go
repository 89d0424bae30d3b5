package learn

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy/names"
)

// bound is how a rule bounds a fact. The zero value: not at all.
type bound uint8

const (
	_      bound = iota
	Names        // a string: one of those seen
	Files        // likewise, and of paths that are others each time what stays
	Subset       // a list: nothing but what was seen
	Empty        // a list: empty, if it always was
	AtMost       // a number: not more than was seen
	Values       // a number: one of those seen
	IfTrue       // a bool: true, if it always was. False allows more
	IfNot        // a bool: false, if it always was. True allows more
)

// bounds are the facts that rules speak of. Of the others, some the workload chooses
// freely, some are other numbers each time, and some follow from these.
var bounds = map[string]bound{
	"workload.netns_own": IfTrue,

	"map.type": Names, "map.key_size": AtMost, "map.value_size": AtMost, "map.max_entries": AtMost, "map.flags": Subset,

	"prog.type": Names, "prog.attach_type": Names, "prog.insns": AtMost, "prog.flags": Subset,
	"prog.helpers": Subset, "prog.kfuncs": Subset, "prog.kernel_stacks": IfNot, "prog.map_types": Subset, "prog.foreign_map_ids": Empty,
	"prog.target_kind": Names, "prog.target_module": Names, "prog.target": Names,

	"attach.type": Names, "attach.flags": Subset, "attach.prog_type": Names, "attach.prog_own": IfTrue,
	"attach.cgroup": Names, "attach.cgroup_inside": IfTrue, "attach.ifname": Names, "attach.netns_own": IfTrue, "attach.map_own": IfTrue,
	"attach.tracepoint": Names, "attach.functions": Subset, "attach.file": Files, "attach.file_shared": IfNot, "attach.pid_own": IfTrue,
	"attach.protocol": Names, "attach.hook": Names,

	"perf_event.type": Names, "perf_event.config": Values, "perf_event.sample": Subset, "perf_event.kernel_stacks": IfNot, "perf_event.pid_own": IfTrue, "perf_event.tracepoint": Names,
	"perf_event.function": Names, "perf_event.file": Files, "perf_event.file_shared": IfNot,

	"object.kind": Names, "object.own": IfTrue, "token": IfNot,
}

// packets are the types of programs that can send packets of the network namespace in
// which they were loaded.
var packets = []string{"xdp", "sched_cls", "sched_act", "lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local", "netfilter", "flow_dissector", "sk_lookup"}

// relevant says whether a rule for these operations should speak of the fact: they must
// have it, in more than name.
func relevant(f *facts.Fact, group []*seen) bool {
	any := func(is func(*facts.Facts) bool) bool {
		return slices.ContainsFunc(group, func(s *seen) bool { return is(&s.Facts) })
	}
	command := group[0].Facts.Command
	switch f.Name {
	case "object.own": // of others' ids it is said that there are none, whatever a rule says
		return !strings.HasSuffix(command, "_get_fd_by_id")
	case "workload.netns_own":
		return command == "prog_load" && any(func(f *facts.Facts) bool { return slices.Contains(packets, f.Prog.Type) })
	case "attach.ifname":
		return numbered(group) || any(func(f *facts.Facts) bool { return f.Attach.Ifname != "" })
	case "attach.prog_type":
		return command != "prog_query"
	case "attach.type", "prog.target_kind", "prog.target_module", "prog.target", "attach.protocol", "attach.hook",
		"perf_event.tracepoint", "perf_event.function":
		return any(func(x *facts.Facts) bool { return *f.At(x).(*string) != "" })
	case "attach.functions":
		return any(func(f *facts.Facts) bool { return len(f.Attach.Functions) > 0 })
	case "attach.tracepoint":
		return command == "raw_tracepoint_open"
	case "attach.flags":
		return command != "raw_tracepoint_open" && command != "perf_event_set_bpf" && command != "iter_create"
	case "attach.cgroup": // inside, it is a name that the workload chooses
		return any(func(f *facts.Facts) bool { return f.Attach.Cgroup != "" && !f.Attach.CgroupInside })
	case "attach.file", "attach.file_shared":
		return any(func(f *facts.Facts) bool { return f.Attach.File != "" })
	case "perf_event.file", "perf_event.file_shared":
		return any(func(f *facts.Facts) bool { return f.Event.File != "" })
	case "prog.kernel_stacks":
		return any(func(f *facts.Facts) bool {
			return slices.ContainsFunc(f.Prog.Helpers, func(h string) bool { return strings.Contains(h, "stack") })
		})
	case "perf_event.kernel_stacks":
		return any(func(f *facts.Facts) bool { return slices.Contains(f.Event.Sample, "PERF_SAMPLE_CALLCHAIN") })
	case "perf_event.config": // of the others it is a number of the kernel's, or where something lies in a file
		return any(func(f *facts.Facts) bool {
			switch f.Event.Type {
			case "kprobe", "uprobe":
				return false
			}
			return f.Event.Tracepoint == ""
		})
	}
	return true
}

// cond is one condition of a rule.
type cond struct {
	fact  *facts.Fact
	bound bound

	names    []string // sorted
	prefixes []string // and what begins so
	patterns []string // and what is like that
	ints     []int64
	most     int64

	// digests are of programs of which the fact isn't known, and which are allowed
	// nevertheless.
	digests []string

	variables []string // what text has for names, if they have names

	said string // text, once it was asked for; "" again where something changes
}

// cond makes the condition on a fact of these operations, nil for none.
func (w *writer) cond(f *facts.Fact, b bound, group []*seen) *cond {
	var told []*seen
	var digests []string
	for _, s := range group {
		if known(&s.Operation, f) {
			told = append(told, s)
		} else if d := s.Facts.Prog.Digest; d != "" && known(&s.Operation, facts.Find("prog.digest")) && strings.HasPrefix(f.Name, "prog.") {
			digests = distinct(append(digests, d))
		} else {
			w.unknown(&s.Operation, f)
			return nil
		}
	}
	if len(told) == 0 || len(digests) > maxDigests {
		w.unknown(&group[0].Operation, f)
		return nil
	}
	c := w.values(f, b, told)
	if c != nil {
		c.digests = digests
	}
	return c
}

// unknown notes that rules for the command don't ask for the fact.
func (w *writer) unknown(o *Operation, f *facts.Fact) {
	if never(o.Facts.Command, f) {
		return
	}
	why := o.Facts.Unknown.Why(f.Name)
	if why == "" {
		why = "the log has its beginning only"
	}
	w.note("%s: %s isn't asked for, as of some it isn't known: %s", o.Facts.Command, f.Name, quote(shorter(why, 100)))
}

// never says that the command may never know the fact (package inspect): what is pinned
// where nothing is, what type the program of a link has.
func never(command string, f *facts.Fact) bool {
	return command == "obj_get" && strings.HasPrefix(f.Name, "object.") || f.Name == "attach.prog_type"
}

func (w *writer) values(f *facts.Fact, b bound, group []*seen) *cond {
	switch b {
	case Names, Files:
		v := values(group, f)
		if b == Files {
			return w.files(f, v)
		}
		return w.names(f, v)
	case Subset:
		return w.names(f, values(group, f))
	case Empty:
		if slices.ContainsFunc(group, func(s *seen) bool { return len(*f.At(&s.Facts).(*[]int64)) > 0 }) {
			return nil
		}
		return &cond{fact: f, bound: b}
	case AtMost:
		c := &cond{fact: f, bound: b}
		for _, s := range group {
			c.most = max(c.most, *f.At(&s.Facts).(*int64))
		}
		if !w.exact {
			c.most = room(f.Name, group, c.most)
		}
		return c
	case Values:
		c := &cond{fact: f, bound: b}
		for _, s := range group {
			c.ints = append(c.ints, *f.At(&s.Facts).(*int64))
		}
		slices.Sort(c.ints)
		if c.ints = slices.Compact(c.ints); len(c.ints) > 64 {
			w.note("%s: %s has %d values, so any is allowed", group[0].Facts.Command, f.Name, len(c.ints))
			return nil
		}
		return c
	case IfTrue, IfNot:
		for _, s := range group {
			if *f.At(&s.Facts).(*bool) != (b == IfTrue) {
				return nil
			}
		}
		return &cond{fact: f, bound: b}
	}
	return nil
}

// values are those that a fact has, a string or a list of them.
func values(group []*seen, f *facts.Fact) (out []string) {
	for _, s := range group {
		switch p := f.At(&s.Facts).(type) {
		case *string:
			out = append(out, *p)
		case *[]string:
			out = append(out, *p...)
		}
	}
	return distinct(out)
}

func distinct(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// names is the condition that a string is one of these, or that a list has no others.
func (w *writer) names(f *facts.Fact, list []string) *cond {
	c := &cond{fact: f, bound: Names}
	if f.Type == facts.Strings {
		c.bound = Subset
	}
	domain := names.Of(f.Name)
	for _, s := range list {
		switch {
		case domain != nil && !domain.Has(s) || len(s) > longName || strings.ContainsRune(s, utf8.RuneError):
			// A name that the kernel's tables don't have ("helper 999", "8 /* type? */"), which
			// a policy can't compare with; one that is too long to; or one that had no text in
			// it, for which the log has U+FFFD.
			c.prefixes = append(c.prefixes, prefix(f.Name, s))
		default:
			c.names = append(c.names, s)
		}
	}
	if c.prefixes = distinct(c.prefixes); len(c.prefixes) > maxPrefixes || slices.Contains(c.prefixes, "") {
		return w.anything(c, "it has too many strange names")
	}
	return w.short(c)
}

// What a condition may have.
const (
	longName    = 256      // bytes of a name
	maxPrefixes = 8        //
	maxPatterns = 16       //
	maxDigests  = 16       //
	listText    = 3 * 3000 // bytes of a list's text
)

// short makes the condition shorter where there are too many names.
func (w *writer) short(c *cond) *cond {
	most := listText
	if w.detail == least {
		most = 2
	}
	if slices.Contains(kinds, c.fact.Name) || len(list(c.names)) <= most {
		return c
	}
	if domain := names.Of(c.fact.Name); domain == nil && w.detail < least {
		var prefixes []string
		for _, n := range c.names {
			prefixes = append(prefixes, stem(n))
		}
		prefixes = distinct(prefixes)
		if !slices.Contains(prefixes, "") && len(prefixes)+len(c.prefixes) <= maxPrefixes {
			w.note("%s has %d names, so all that begin like them are allowed", c.fact.Name, len(c.names))
			c.names, c.prefixes = nil, distinct(append(c.prefixes, prefixes...))
			return c
		}
	}
	return w.anything(c, fmt.Sprintf("it has %d names", len(c.names)))
}

func (w *writer) anything(c *cond, why string) *cond {
	w.note("%s: %s, so any is allowed", c.fact.Name, why)
	return nil
}

// holds says whether the operation meets the condition.
func (c *cond) holds(o *Operation) bool {
	if !known(o, c.fact) {
		return slices.Contains(c.digests, o.Facts.Prog.Digest) && known(o, facts.Find("prog.digest"))
	}
	if slices.Contains(c.digests, o.Facts.Prog.Digest) {
		return true
	}
	switch p := c.fact.At(&o.Facts).(type) {
	case *string:
		return c.has(*p)
	case *[]string:
		return !slices.ContainsFunc(*p, func(s string) bool { return !c.has(s) })
	case *[]int64:
		return len(*p) == 0
	case *int64:
		return c.bound == AtMost && *p <= c.most || slices.Contains(c.ints, *p)
	case *bool:
		return *p == (c.bound == IfTrue)
	}
	return false
}

func (c *cond) has(s string) bool {
	_, ok := slices.BinarySearch(c.names, s)
	return ok || slices.ContainsFunc(c.prefixes, func(p string) bool { return strings.HasPrefix(s, p) }) ||
		slices.ContainsFunc(c.patterns, func(p string) bool { return matches(p, s) })
}

// join widens the condition by another on the same fact. False: it has become too much,
// and is as it was.
func (c *cond) join(o *cond) bool {
	names, prefixes := distinct(slices.Concat(c.names, o.names)), distinct(slices.Concat(c.prefixes, o.prefixes))
	if len(c.digests)+len(o.digests) > 0 || len(prefixes) > maxPrefixes || len(list(names)) > listText {
		return false
	}
	c.names, c.prefixes, c.said = names, prefixes, ""
	return true
}

// text is the condition as CEL has it.
func (c *cond) text() string {
	if c.said == "" {
		c.said = c.say()
	}
	return c.said
}

func (c *cond) say() string {
	name := c.fact.Name
	var s string
	switch c.bound {
	case IfTrue:
		s = name
	case IfNot:
		s = "!" + name
	case Empty:
		s = "size(" + name + ") == 0"
	case AtMost:
		s = fmt.Sprintf("%s <= %d", name, c.most)
	case Values:
		s = fmt.Sprintf("%s == %d", name, c.ints[0])
		if len(c.ints) > 1 {
			s = name + " in " + strings.ReplaceAll(fmt.Sprint(c.ints), " ", ", ")
		}
	case Subset:
		if len(c.names)+len(c.prefixes)+len(c.patterns) == 0 {
			s = "size(" + name + ") == 0"
			break
		}
		v := "x"
		if i := strings.LastIndexByte(name, '.'); i >= 0 && i+1 < len(name) {
			v = name[i+1 : i+2] // prog.helpers: h
		}
		s = fmt.Sprintf("%s.all(%s, %s)", name, v, c.one(v))
	default:
		s = c.one(name)
	}
	if len(c.digests) == 0 {
		return s
	}
	return "(" + s + " || prog.digest in " + list(c.digests) + ")"
}

// one says of a string that it is as the condition wants it.
func (c *cond) one(name string) string {
	var out []string
	switch {
	case len(c.variables) > 0:
		for _, v := range c.variables {
			out = append(out, name+" in "+v)
		}
	case len(c.names) == 1 && c.bound != Subset:
		out = append(out, name+" == "+quote(c.names[0]))
	case len(c.names) > 0:
		out = append(out, name+" in "+list(c.names))
	}
	for _, p := range c.prefixes {
		out = append(out, name+".startsWith("+quote(p)+")")
	}
	for _, p := range c.patterns {
		out = append(out, name+".matches("+quote(p)+")")
	}
	if len(out) > 1 && c.bound != Subset {
		return "(" + strings.Join(out, " || ") + ")"
	}
	return strings.Join(out, " || ")
}

// list is a list as CEL has it.
func list(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quote(n)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// quote is a string as CEL has it. It has no line of its own, and nothing that YAML
// would read otherwise in a block.
func quote(s string) string { return strconv.QuoteToASCII(s) }

// clean is a name without what YAML could take for something else.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, s)
}
