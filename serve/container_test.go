package serve

import (
	"os"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/oci"
)

// TestIdentify: what a runtime says of a container becomes facts; what it doesn't isn't
// known, and none of it can be without bounds.
func TestIdentify(t *testing.T) {
	user, err := os.Open("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	process := func(id string, annotations map[string]string) *container {
		p := &oci.Process{}
		p.State.ID, p.State.Annotations = id, annotations
		c := &container{userNS: user}
		c.identify(p)
		return c
	}
	c := process("web", map[string]string{"io.kubernetes.cri.container-name": "nginx", "io.kubernetes.cri.image-name": "registry/nginx:1", "mine": "x"})
	if f := c.facts; !strings.HasPrefix(f.ID, "web-") || f.Container.ID != "web" || f.Container.Name != "nginx" || f.Container.Image != "registry/nginx:1" || f.Annotations["mine"] != "x" || len(f.Labels) > 0 {
		t.Errorf("%+v", f)
	}
	if c.who.Image != "registry/nginx:1" {
		t.Errorf("selectors see the image %q", c.who.Image)
	}
	if c := process("web", nil); c.facts.Container.Name != "" || c.facts.Container.Image != "" || c.who.Image != "" || c.facts.Annotations != nil {
		t.Errorf("of nothing: %+v", c.facts)
	}
	big := map[string]string{}
	for i := range 100 {
		big[strings.Repeat("k", i+1)] = strings.Repeat("v", 1000)
	}
	size := 0
	for k, v := range process("web", big).facts.Annotations {
		size += len(k) + len(v)
	}
	if size == 0 || size > maxAnnotations {
		t.Errorf("%d bytes of annotations are kept", size)
	}
	// The id names a socket.
	for _, id := range []string{"../../etc/x", "a/b", "", ".", "..", "a\x00b", strings.Repeat("x", 300), "-f"} {
		if got := workloadID(id); !strings.HasPrefix(got, "container-") || strings.ContainsAny(got, "/\x00") {
			t.Errorf("%q: %q", id, got)
		}
	}
	if a, b := workloadID("web"), workloadID("web"); a == b {
		t.Errorf("two processes of a container are both %q", a)
	}
}
