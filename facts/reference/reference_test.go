package reference_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/facts/reference"
)

// Every fact is in every format.
func TestWrite(t *testing.T) {
	for _, format := range reference.Formats {
		var b bytes.Buffer
		if err := reference.Write(&b, format, nil); err != nil {
			t.Fatal(err)
		}
		for _, f := range facts.Table {
			if !strings.Contains(b.String(), f.Name) || f.About == "" {
				t.Errorf("%s lacks %s", format, f.Name)
			}
		}
		if format == "json" && !json.Valid(b.Bytes()) {
			t.Error("no JSON")
		}
	}
	var b bytes.Buffer
	if err := reference.Write(&b, "text", []string{"pin", "map.type"}); err != nil || strings.Count(b.String(), "\n") != 2 {
		t.Errorf("got %v and\n%s", err, b.String())
	}
	for _, args := range [][]string{{"text", "nope"}, {"yaml"}} {
		if err := reference.Write(&b, args[0], args[1:]); err == nil {
			t.Errorf("%q: got no error", args)
		}
	}
}
