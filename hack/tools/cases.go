package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bpfbroker/bpfbroker/hack/internal/list"
)

// testCase is one use of one tool.
type testCase struct {
	name  string // "bpftool/map-create", or "bcc/each:opensnoop"
	tool  string // "bpftool"
	title string
	argv  []string // relative to the directory of the programs
}

// findCases reads dir/TOOL/SCRIPT, in the order of names. A file SCRIPT.list
// makes SCRIPT a case for each of its lines.
func findCases(dir string) ([]testCase, error) {
	scripts, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		return nil, err
	}
	var cases []testCase
	for _, path := range scripts {
		if strings.HasSuffix(path, ".list") {
			continue
		}
		title, err := readTitle(path)
		if err != nil {
			return nil, err
		}
		tool := filepath.Base(filepath.Dir(path))
		c := testCase{
			name:  tool + "/" + filepath.Base(path),
			tool:  tool,
			title: title,
			argv:  []string{filepath.Join("cases", tool, filepath.Base(path))},
		}
		lines, err := list.Read(path + ".list")
		if errors.Is(err, fs.ErrNotExist) {
			cases = append(cases, c)
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, line := range lines {
			name, _, _ := strings.Cut(line, " ")
			each := c
			each.name += ":" + name
			each.title = strings.ReplaceAll(c.title, "NAME", name)
			each.argv = append(c.argv[:1:1], line)
			cases = append(cases, each)
		}
	}
	return cases, nil
}

// readTitle returns a script's second line, which is a comment.
func readTitle(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan()
	lines.Scan()
	title, ok := strings.CutPrefix(lines.Text(), "# ")
	if !ok {
		return "", fmt.Errorf("%s: the second line is no title: %q", path, lines.Text())
	}
	return title, nil
}

// readReasons reads lines "CASE => reason".
func readReasons(path string) (map[string]string, error) {
	lines, err := list.Read(path)
	if err != nil {
		return nil, err
	}
	reasons := make(map[string]string)
	for _, line := range lines {
		name, reason, ok := strings.Cut(line, " => ")
		if !ok {
			return nil, fmt.Errorf("%s: want \"CASE => reason\", got %q", path, line)
		}
		reasons[strings.TrimSpace(name)] = strings.TrimSpace(reason)
	}
	return reasons, nil
}
