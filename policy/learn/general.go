package learn

import (
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/bpfbroker/bpfbroker/facts"
)

// What is seen once is an example. Numbers get room to grow, and of names that are others
// each time a rule has what stays.

// room is the next power of two; for what differs by the number of CPUs, or from one build
// of a program to the next, somewhat more.
func room(fact string, group []*seen, n int64) int64 {
	least := int64(0)
	switch fact {
	case "prog.insns":
		n, least = n+min(n, math.MaxInt64-n), 16
	case "map.max_entries":
		if slices.ContainsFunc(group, func(s *seen) bool { return s.Facts.Map.Type == "perf_event_array" || s.Facts.Map.Type == "cpumap" }) {
			least = 1024 // one for each CPU
		}
	}
	if n <= 0 {
		return 0
	}
	p := int64(1)
	for p < n && p < 1<<62 {
		p *= 2
	}
	return max(n, p, least)
}

// prefix is what a name begins with that can't be compared as a whole.
func prefix(fact, s string) string {
	switch {
	case fact == "prog.helpers" && strings.HasPrefix(s, "helper "):
		return "helper " // numbers that no kernel has
	case strings.HasSuffix(fact, ".flags") && strings.HasPrefix(s, "0x"):
		return "0x"
	}
	if i := strings.IndexRune(s, utf8.RuneError); i >= 0 {
		s = s[:i]
	}
	return shorter(s, 64)
}

// shorter is at most so many bytes of s.
func shorter(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// stem is what a name has in common with its like: tcp_, sched:, /usr/.
func stem(s string) string {
	if i := strings.IndexAny(strings.TrimPrefix(s, "/"), "_:/."); i >= 0 {
		return s[:i+1+len(s)-len(strings.TrimPrefix(s, "/"))]
	}
	return ""
}

// temporary are the directories in which names are random.
var temporary = []string{"/tmp/", "/var/tmp/", "/dev/shm/"}

var (
	number  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[0-9]{6,}`) })
	process = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^/proc/[0-9]+(/task/[0-9]+)?/`) })
)

// files is the condition that a path is one of these, whatever processes they are of, and
// what temporary directories are called.
func (w *writer) files(f *facts.Fact, list []string) *cond {
	var exact, patterns []string
	for _, path := range list {
		if p := pattern(path); p != "" && !w.exact && len(p) <= 200 {
			patterns = append(patterns, p)
		} else {
			exact = append(exact, path)
		}
	}
	c := w.names(f, exact)
	if patterns = distinct(patterns); len(patterns) > maxPatterns && c != nil {
		return w.anything(c, "it has too many temporary names")
	}
	if c != nil {
		c.patterns = patterns
	}
	return c
}

// pattern is a regular expression for a path of which parts are others each time; "" where
// none is.
func pattern(path string) string {
	const digits = "[0-9]+"
	var out strings.Builder
	rest := path
	if m := process().FindString(path); m != "" {
		rest = path[len(m):]
		out.WriteString("/proc/" + digits)
		if strings.Contains(m, "/task/") {
			out.WriteString("/task/" + digits)
		}
		out.WriteString("/")
	}
	for _, dir := range temporary {
		below, is := strings.CutPrefix(rest, dir)
		name, under, deeper := strings.Cut(below, "/")
		i := strings.IndexAny(name, "-_.0123456789")
		if !is || i < 0 {
			continue
		}
		if strings.ContainsRune("-_.", rune(name[i])) {
			i++ // tmp.Xa81: it is random behind the dot
		}
		out.WriteString(regexp.QuoteMeta(dir+name[:i]) + "[^/]*")
		if rest = ""; deeper {
			rest = "/" + under
		}
		break
	}
	last := 0
	for _, m := range number().FindAllStringIndex(rest, -1) {
		out.WriteString(regexp.QuoteMeta(rest[last:m[0]]) + digits)
		last = m[1]
	}
	out.WriteString(regexp.QuoteMeta(rest[last:]))
	if p := out.String(); p != regexp.QuoteMeta(path) {
		return "^" + p + "$"
	}
	return ""
}

func matches(pattern, s string) bool {
	re, err := regexp.Compile(pattern)
	return err == nil && re.MatchString(s)
}
