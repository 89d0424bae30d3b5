// Package list reads lists of lines that people keep by hand.
package list

import (
	"os"
	"strings"
)

// Read returns the lines of a file that aren't empty or comments (#).
func Read(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines, nil
}
