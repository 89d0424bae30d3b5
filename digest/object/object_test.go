package object

import (
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/bpfbroker/bpfbroker/digest"
)

// loaderFile names, in the environment of this test's own binary, the object that it
// shall load, instead of testing anything.
const loaderFile = "DIGEST_TEST_LOAD"

func TestMain(m *testing.M) {
	if file := os.Getenv(loaderFile); file != "" {
		if err := load(file); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func load(file string) error {
	spec, err := ebpf.LoadCollectionSpec(file)
	if err != nil {
		return err
	}
	c, err := ebpf.NewCollection(spec)
	if err == nil {
		c.Close()
	}
	return err
}

const calls = "testdata/calls.elf"

// What was once in a policy stays right: testdata/make.sh says how the object was made.
var want = map[string]string{
	"count": "68442cc7603cb978a44f81236416fb789d4de6abddf6c149def22f3e89f0f000",
	"loop":  "7159387f209e0bc22e0cb6170f2e7acf84a53081436ac35f32283ddfdb7dd536",
}

func TestDigests(t *testing.T) {
	programs, err := Digests(calls, "")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, p := range programs {
		got[p.Name] = p.Sum.String()
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, wanted %v", got, want)
	}
	one, err := Digests(calls, "loop")
	if err != nil || len(one) != 1 || one[0].Sum.String() != want["loop"] {
		t.Errorf("of one program: got %v (%v)", one, err)
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct{ file, name, want string }{
		{"testdata/none", "", "no such file"},
		{"testdata/make.sh", "", `read object "testdata/make.sh"`},
		{calls, "nothing", `has no program "nothing"; it has ["count" "loop"]`},
	} {
		if _, err := Digests(c.file, c.name); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %q: got %v, wanted %q", c.file, c.name, err, c.want)
		}
	}
}

// The programs that two loaders give to the kernel have the digests that the file has.
func TestLoaders(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("needs root, not run with -short")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	byCilium := exec.Command(self)
	byCilium.Env = append(os.Environ(), loaderFile+"="+calls)
	pins := "/sys/fs/bpf/bpfbroker-digest-test"
	byLibbpf := exec.Command("unshare", "-m", "sh", "-c", "mount -t bpf none /sys/fs/bpf && exec bpftool prog loadall "+calls+" "+pins)
	wanted := slices.Sorted(maps.Values(want))
	for name, cmd := range map[string]*exec.Cmd{"cilium/ebpf": byCilium, "libbpf": byLibbpf} {
		var sums []string
		loads(t, cmd, func(prog string, p *digest.Program) {
			if want[prog] != "" { // others probe for features
				sums = append(sums, digest.Of(p).String())
			}
		})
		slices.Sort(sums)
		if sums = slices.Compact(sums); !slices.Equal(sums, wanted) {
			t.Errorf("%s loads programs with the digests %q, wanted %q", name, sums, wanted)
		}
	}
}
