package abi

import (
	"strconv"
	"strings"
)

// Older says whether a kernel's release, as uname -r shows it ("6.1.0-56-cloud-amd64"),
// is before a version such as the table names ("6.9"). None is before "".
func Older(release, version string) bool {
	a, b := numbers(release), numbers(version)
	return a[0] < b[0] || a[0] == b[0] && a[1] < b[1]
}

// numbers are a version's first two; what isn't there is 0.
func numbers(version string) (n [2]int) {
	for i := range n {
		end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
		if end < 0 {
			end = len(version)
		}
		n[i], _ = strconv.Atoi(version[:end])
		version = strings.TrimPrefix(version[end:], ".")
	}
	return n
}
