package generate

import (
	"reflect"
	"strings"
	"testing"
)

// A request follows from its seed, and its text says all of it.
func TestText(t *testing.T) {
	calls := map[string]bool{}
	for seed := range uint64(2000) {
		r := New(seed)
		calls[r.Call] = true
		if again := New(seed); !reflect.DeepEqual(r, again) {
			t.Fatalf("seed %d makes different requests:\n%s\n%s", seed, r.Text(), again.Text())
		}
		back, err := Read(strings.NewReader(r.Text()))
		if err != nil || len(back) != 1 {
			t.Fatalf("seed %d: %d requests, %v\n%s", seed, len(back), err, r.Text())
		}
		if got := back[0].Text(); got != r.Text() {
			t.Fatalf("seed %d: read\n%swrote\n%s", seed, got, r.Text())
		}
		if string(back[0].Image()) != string(r.Image()) {
			t.Fatalf("seed %d: what is read puts other bytes into memory\n%s", seed, r.Text())
		}
	}
	for _, name := range Calls() {
		if !calls[name] {
			t.Errorf("no request is of %s", name)
		}
	}
}

// Smaller requests are, and making them so comes to an end.
func TestSmaller(t *testing.T) {
	for seed := range uint64(100) {
		r := New(seed)
		for n := 0; ; n++ {
			all := r.Smaller()
			if len(all) == 0 {
				break
			}
			if n == 10000 {
				t.Fatalf("seed %d: no end\n%s", seed, r.Text())
			}
			for _, s := range all {
				if s.Text() == r.Text() {
					t.Fatalf("seed %d: the same again\n%s", seed, r.Text())
				}
			}
			r = all[len(all)-1]
		}
	}
}

// Every object of the world has what it needs before it.
func TestWorld(t *testing.T) {
	numbers := map[int]string{}
	for _, o := range World() {
		if o.FD == 0 {
			continue
		}
		if other := numbers[o.FD]; other != "" {
			t.Errorf("%s and %s are at fd %d", o.Name, other, o.FD)
		}
		numbers[o.FD] = o.Name
		if o.Call != "" && RowOf(o.Call) == nil {
			t.Errorf("%s: no call %s", o.Name, o.Call)
		}
	}
	for name, fd := range Files {
		if other := numbers[fd]; other != "" {
			t.Errorf("%s and %s are at fd %d", name, other, fd)
		}
		numbers[fd] = name
	}
}

// FuzzRead: no text of the corpus, however broken, does harm.
func FuzzRead(f *testing.F) {
	for seed := range uint64(50) {
		f.Add(New(seed).Text())
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := Read(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, r := range all {
			r.Image()
			again, err := Read(strings.NewReader(r.Text()))
			if err != nil || len(again) != 1 {
				t.Errorf("%v: %q", err, r.Text())
			}
		}
	})
}
