package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const stream = `{"Action":"run","Package":"github.com/bpfbroker/bpfbroker/abi","Test":"TestA"}
{"Action":"output","Package":"github.com/bpfbroker/bpfbroker/abi","Test":"TestA","Output":"quiet\n"}
{"Action":"pass","Package":"github.com/bpfbroker/bpfbroker/abi","Test":"TestA"}
{"Action":"run","Package":"github.com/bpfbroker/bpfbroker/abi","Test":"TestB"}
{"Action":"output","Package":"github.com/bpfbroker/bpfbroker/abi","Test":"TestB","Output":"    b_test.go:7: broken\n"}
{"Action":"fail","Package":"github.com/bpfbroker/bpfbroker/abi","Test":"TestB"}
{"Action":"output","Package":"github.com/bpfbroker/bpfbroker/abi","Test":"TestC","Output":"=== RUN   TestC\n"}
{"Action":"output","Package":"github.com/bpfbroker/bpfbroker/abi","Test":"TestC","Output":"    c_test.go:9: no netkit here\n"}
{"Action":"output","Package":"github.com/bpfbroker/bpfbroker/abi","Test":"TestC","Output":"--- SKIP: TestC (0.00s)\n"}
{"Action":"skip","Package":"github.com/bpfbroker/bpfbroker/abi","Test":"TestC"}
{"Action":"output","Package":"github.com/bpfbroker/bpfbroker/abi","Test":"TestD","Output":"panic: oh\n"}
{"Action":"output","Package":"github.com/bpfbroker/bpfbroker/abi","Output":"FAIL\tgithub.com/bpfbroker/bpfbroker/abi\t0.1s\n"}
{"Action":"fail","Package":"github.com/bpfbroker/bpfbroker/abi"}
{"Action":"skip","Package":"github.com/bpfbroker/bpfbroker/empty"}
`

func TestReport(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out, false)
	if err := r.read(strings.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	if r.passed != 1 || r.failed != 2 || len(r.skips) != 1 {
		t.Errorf("got %d passed, %d failed, %d skipped, wanted 1, 2, 1", r.passed, r.failed, len(r.skips))
	}
	unexpected := r.showSkips(nil, false)
	if len(unexpected) != 1 || !strings.Contains(unexpected[0].Error(), "abi.TestC") {
		t.Errorf("got unexpected skips %v, wanted abi.TestC", unexpected)
	}
	if unexpected := r.showSkips([]string{"abi.TestC"}, false); len(unexpected) != 0 {
		t.Errorf("a listed skip is unexpected: %v", unexpected)
	}
	text := out.String()
	for _, want := range []string{"broken", "skip abi.TestC: c_test.go:9: no netkit here", "abi.TestD: did not end", "panic: oh"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "quiet") {
		t.Errorf("the report shows what a passing test wrote:\n%s", text)
	}
}

func TestListed(t *testing.T) {
	expected := []string{"abi.TestC", "link.TestX/*"}
	for name, want := range map[string]bool{
		"abi.TestC":     true,
		"abi.TestC/sub": true,
		"abi.TestCC":    false,
		"link.TestX/a":  true,
		"link.TestX":    false,
	} {
		if got := listed(expected, name); got != want {
			t.Errorf("listed(%q): got %v, wanted %v", name, got, want)
		}
	}
}

func TestSkipsNeedAClass(t *testing.T) {
	file := filepath.Join(t.TempDir(), "skips")
	for text, ok := range map[string]bool{
		"# nothing\n\nabi.TestC kernel\n": true,
		"abi.TestC\n":                     false,
		"abi.TestC because\n":             false,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readSkips(file); (err == nil) != ok {
			t.Errorf("readSkips(%q): got error %v", text, err)
		}
	}
}
