package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/oci"
	"github.com/bpfbroker/bpfbroker/serve"
)

// podmanProfile is where distributions have Podman's default profile, which Docker's is
// much like.
const podmanProfile = "/usr/share/containers/seccomp.json"

func profileCommand() *cobra.Command {
	var base, listener, metadata string
	c := &cobra.Command{
		Use:   "profile [flags]",
		Short: "Print a seccomp profile by which a runtime hands bpf() calls over",
		Long: `Print a seccomp profile that is as another one but for bpf(), perf_event_open() and the two
ioctl() requests that attach programs to perf events: the runtime hands those over to
"bpfbroker serve". What acts on the container's own fds alone, such as map elements, goes
straight to the kernel.

The base is a file (as Docker, Podman or the OCI have them; the result is of the same
format), podman for the file that Podman's packages install, or none, which allows
everything else: linux.seccomp of an OCI bundle.`,
		Example: `  bpfbroker profile >bpf.json
  podman run --security-opt seccomp=bpf.json --userns auto IMAGE

  # into the bundle of a container
  bpfbroker profile --base none | jq --slurpfile s /dev/stdin '.linux.seccomp = $s[0]' config.json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			text := oci.AllowAll()
			switch base {
			case "none":
			case "podman":
				base = podmanProfile
				fallthrough
			default:
				var err error
				text, err = os.ReadFile(base)
				if errors.Is(err, fs.ErrNotExist) {
					err = fmt.Errorf("%w; give another with --base: a file, or none", err)
				}
				if err != nil {
					return fmt.Errorf("profile: --base: %w", err)
				}
			}
			b, err := oci.Profile(text, oci.ProfileOptions{Listener: listener, Metadata: metadata, Native: abi.NativeCommands(sys.KernelRelease(), true)})
			if err != nil {
				return fmt.Errorf("profile: --base: %s: %w", base, err)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), string(b))
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&base, "base", "podman", "the profile that it is made of: a file, podman or none")
	f.StringVar(&listener, "listener", filepath.Join(stateDir, serve.OCISocket), "the socket of bpfbroker serve")
	f.StringVar(&metadata, "metadata", "", "text that the runtime passes on, for the log")
	complete(c, "base", "podman", "none")
	usageErrors(c)
	return c
}
