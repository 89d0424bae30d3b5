package sys

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// MountLine is a line of mountinfo (proc_pid_mountinfo(5)): what of a file system is
// mounted, where, of what type, and the file system's options.
type MountLine struct{ Root, Point, Type, Options string }

// Mounts lists the mounts of the calling thread's namespace.
func Mounts() ([]MountLine, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	var out []MountLine
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for lines.Scan() {
		head, tail, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(head)
		if !ok || len(fields) < 5 {
			continue
		}
		of := strings.Fields(tail)
		if len(of) < 3 {
			continue
		}
		out = append(out, MountLine{unescape.Replace(fields[3]), unescape.Replace(fields[4]), of[0], of[2]})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return out, nil
}
