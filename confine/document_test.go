package confine

import (
	"bytes"
	"os"
	"testing"
)

func TestDocument(t *testing.T) {
	var b bytes.Buffer
	if err := WriteDocument(&b); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../docs/confine.md")
	if err != nil || !bytes.Equal(got, b.Bytes()) {
		t.Errorf("docs/confine.md isn't what the list says (%v): run make docs", err)
	}
}
