package policy

import (
	"slices"
	"strconv"
	"strings"
)

// Who is a workload, as selectors know it. What can't be known is empty, and fits no
// selector that asks for it.
type Who struct {
	User   string // its owner's name
	UID    int    // and number
	Groups []string
	Image  string            // of its container
	Labels map[string]string // likewise
	Cgroup string            // path below the root of the hierarchy
}

// Fits says whether a policy with this selector is for the workload: of each list that the
// selector has, an element must fit, and of labels all.
//
//   - users are names or numbers, groups names;
//   - in images * is any text;
//   - a cgroup is for those below it, too.
func (s *Selector) Fits(w *Who) bool {
	has := func(list []string, fits func(string) bool) bool {
		return len(list) == 0 || slices.ContainsFunc(list, fits)
	}
	for k, v := range s.Labels {
		if got, there := w.Labels[k]; !there || got != v {
			return false
		}
	}
	return has(s.Users, func(u string) bool { return u != "" && (u == w.User || u == strconv.Itoa(w.UID)) }) &&
		has(s.Groups, func(g string) bool { return slices.Contains(w.Groups, g) }) &&
		has(s.Images, func(i string) bool { return w.Image != "" && glob(i, w.Image) }) &&
		has(s.Cgroups, func(c string) bool { return below(w.Cgroup, c) })
}

// glob says whether s is as the pattern has it, in which * is any text.
func glob(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return s == pattern
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, p := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(s, p)
		if !found {
			return false
		}
		s = after
	}
	return true
}

// below says whether path is the directory or below it.
func below(path, dir string) bool {
	dir = strings.TrimSuffix(dir, "/")
	return path != "" && (path == dir || strings.HasPrefix(path, dir+"/"))
}

// Select is the first of the policies that is for the workload; nil: none is.
func Select(policies []*Rules, w *Who) *Rules {
	for _, p := range policies {
		if p.spec.Selector.Fits(w) {
			return p
		}
	}
	return nil
}
