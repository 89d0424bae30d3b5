package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/cgroups"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/worker"
)

// finding is what doctor says of one thing.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"`           // "ok", "limited": some things don't work; "fails": nothing does
	Found  string `json:"found"`            // what there is
	Remedy string `json:"remedy,omitempty"` // what to do; none where it is ok
}

const (
	isOK      = "ok"
	isLimited = "limited"
	isFailing = "fails"
)

// checks are what doctor looks at, in order; each says why it matters where it isn't ok.
var checks = []struct {
	name string
	look func() finding
}{
	{"root", func() finding {
		host, err := sys.InInitialUserNS()
		switch {
		case os.Geteuid() != 0:
			return finding{"", isFailing, "not root", "run it with sudo: workloads are made by the host's root"}
		case err != nil || !host:
			return finding{"", isFailing, "root of a user namespace", "run it outside of the container: workloads are made by the host's root"}
		}
		return finding{"", isOK, "root of the host", ""}
	}},
	{"kernel", func() finding {
		release := sys.KernelRelease()
		if abi.Older(release, "5.19") {
			return finding{"", isFailing, release, "Linux 5.19 or newer: before, signals interrupt intercepted calls (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)"}
		}
		return finding{"", isOK, release, ""}
	}},
	{"worker", func() finding {
		switch kind, err := worker.Supported(); {
		case err != nil:
			return finding{"", isFailing, err.Error(), "a kernel with CONFIG_BPF_SYSCALL and CONFIG_SECCOMP_FILTER"}
		case kind == worker.Token:
			return finding{"", isOK, "token: workers have no capability on the host", ""}
		}
		return finding{"", isLimited, "capability: workers have capabilities of the host", "Linux 6.9, which has BPF tokens"}
	}},
	{"types of the kernel", func() finding {
		if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
			return finding{"", isLimited, "no /sys/kernel/btf/vmlinux", "a kernel with CONFIG_DEBUG_INFO_BTF: without, programs of type tracing and CO-RE don't load, and rules about prog.kfuncs deny"}
		}
		return finding{"", isOK, "/sys/kernel/btf/vmlinux", ""}
	}},
	{"cgroup v2", func() finding {
		own, err := cgroups.Open(cgroups.Self)
		if err != nil {
			return finding{"", isFailing, err.Error(), "a kernel with cgroup v2: workloads are in one of their own, and scope: workload is about it"}
		}
		defer own.Close()
		paths, err := cgroups.Paths(cgroups.Self)
		if err == nil && len(paths) > 1 {
			return finding{"", isLimited, "v1 and v2 side by side", "limits of memory are v1's here; boot with systemd.unified_cgroup_hierarchy=1 to have them of v2"}
		}
		return finding{"", isOK, "v2 alone", ""}
	}},
	{"perf events of cgroups", func() finding {
		mounts, err := sys.Mounts()
		if err != nil {
			return finding{"", isLimited, err.Error(), "a readable /proc"}
		}
		for _, m := range mounts {
			if m.Type != "cgroup2" || m.Root != "/" {
				continue
			}
			b, err := os.ReadFile(filepath.Join(m.Point, "cgroup.subtree_control"))
			if err == nil && len(strings.Fields(string(b))) == 0 {
				return finding{"", isLimited, "no controller is enabled in its root", "echo +pids >" + m.Point + "/cgroup.subtree_control: where none ever was, perf events with scope: workload fail with ENOENT"}
			}
			return finding{"", isOK, "cgroups have them", ""}
		}
		return finding{"", isLimited, "cgroup v2 is mounted nowhere that shows all of it", "mount -t cgroup2 cgroup2 /sys/fs/cgroup"}
	}},
	{"user namespaces", func() finding {
		if n := sysctl("user/max_user_namespaces"); n == "0" {
			return finding{"", isFailing, "user.max_user_namespaces is 0", "sysctl user.max_user_namespaces=10000: each workload has one"}
		}
		return finding{"", isOK, "there may be some", ""}
	}},
	{"core dumps", func() finding {
		if n := sysctl("fs/suid_dumpable"); n == "1" {
			return finding{"", isFailing, "fs.suid_dumpable is 1", "sysctl fs.suid_dumpable=0 (or 2): a worker changes its ids, and its workload could trace it"}
		}
		return finding{"", isOK, "fs.suid_dumpable isn't 1", ""}
	}},
	{"tracefs", func() finding {
		b, err := os.ReadFile("/proc/filesystems")
		if err != nil || !strings.Contains(string(b), "\ttracefs\n") {
			return finding{"", isLimited, "the kernel has none", "a kernel with CONFIG_TRACING: tools find tracepoints there"}
		}
		return finding{"", isOK, "the kernel has it; workloads see a copy", ""}
	}},
	{"probes", func() finding {
		var lack []string
		for _, kind := range []string{"kprobe", "uprobe"} {
			if _, ok := sys.EventType(kind); !ok {
				lack = append(lack, kind)
			}
		}
		if len(lack) > 0 {
			return finding{"", isLimited, "the kernel has no " + strings.Join(lack, ", no "), "a kernel with CONFIG_KPROBE_EVENTS and CONFIG_UPROBE_EVENTS, for tools that need them"}
		}
		return finding{"", isOK, "kprobes and uprobes", ""}
	}},
	{"security modules", func() finding {
		b, err := os.ReadFile("/sys/kernel/security/lsm")
		if err != nil {
			return finding{"", isOK, "none that can be seen", ""}
		}
		for _, name := range []string{"selinux", "apparmor", "smack"} {
			if slices.Contains(strings.Split(strings.TrimSpace(string(b)), ","), name) {
				return finding{"", isLimited, strings.TrimSpace(string(b)), "bpfbroker wasn't tried under " + name + ": if calls fail with EACCES, look at its log"}
			}
		}
		return finding{"", isOK, strings.TrimSpace(string(b)), ""}
	}},
	{"container runtimes", func() finding {
		var found []string
		for _, name := range []string{"runc", "crun", "podman"} {
			if out, err := exec.Command(name, "--version").Output(); err == nil {
				line, _, _ := strings.Cut(string(out), "\n")
				found = append(found, strings.Replace(line, " version", "", 2))
			}
		}
		if len(found) == 0 {
			return finding{"", isOK, "none; run needs none", ""}
		}
		return finding{"", isOK, strings.Join(found, ", "), ""}
	}},
	{"daemon for containers", func() finding {
		path := filepath.Join(stateDir, "oci.sock")
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return finding{"", isOK, "none; bpfbroker serve is one", ""}
		}
		return finding{"", isOK, path, ""}
	}},
}

// sysctl is one's value, "" for one that isn't there.
func sysctl(name string) string {
	b, _ := os.ReadFile(filepath.Join("/proc/sys", name))
	return strings.TrimSpace(string(b))
}

func doctorCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check what works on this host, and say what to do about the rest",
		Long: `Check the kernel, its settings, mounts and what else bpfbroker needs, and say what works
here, and what to do about the rest.

Exit status: 0 if workloads can be served, be it with limits; 1 if they can't.`,
		Example: `  sudo bpfbroker doctor
  sudo bpfbroker doctor -o json | jq -r '.[] | select(.status != "ok") | .remedy'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			found := []finding{}
			failing := false
			for _, check := range checks {
				f := check.look()
				f.Check = check.name
				failing = failing || f.Status == isFailing
				found = append(found, f)
			}
			if err := writeFindings(c.OutOrStdout(), format, found); err != nil {
				return err
			}
			if failing {
				return &exitError{nil, 1}
			}
			return nil
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "text", "format: text or json")
	complete(c, "output", "text", "json")
	usageErrors(c)
	return c
}

func writeFindings(w io.Writer, format string, all []finding) error {
	switch format {
	case "json":
		return writeJSON(w, all)
	case "text":
	default:
		return fmt.Errorf("doctor: --output: %q is neither text nor json", format)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, f := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Status, f.Check, f.Found)
		if f.Remedy != "" {
			fmt.Fprintf(t, "\t\t→ %s\n", f.Remedy)
		}
	}
	return t.Flush()
}
