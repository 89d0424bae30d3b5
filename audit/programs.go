package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Programs is a directory with the instructions of programs, each once, in a file of
// the name of their SHA-256. The name is ours: a worker could say any. nil keeps none.
type Programs struct {
	dir  string
	most int64 // bytes of all
	size int64 // as far as we know; -1: nobody has looked
}

// programsSize is how much a directory may hold.
const programsSize = 256 << 20

const insnsSuffix = ".insns"

// NewPrograms returns the directory at dir, which is made when it is first needed.
func NewPrograms(dir string) *Programs { return &Programs{dir, programsSize, -1} }

// ProgramsOf is the directory that belongs to the log in the file at path.
func ProgramsOf(path string) string { return path + ".programs" }

var errNoDirectory = errors.New("there is no directory for them (--audit-programs)")

// Keep keeps the instructions, and returns their digest.
func (p *Programs) Keep(insns []byte) (digest string, err error) {
	if p == nil {
		return "", errNoDirectory
	}
	sum := sha256.Sum256(insns)
	digest = hex.EncodeToString(sum[:])
	path := filepath.Join(p.dir, digest+insnsSuffix)
	if _, err := os.Lstat(path); err == nil {
		return digest, nil
	}
	if err := os.Mkdir(p.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if err := p.look(); err != nil {
		return "", err
	}
	if p.size+int64(len(insns)) > p.most {
		return "", fmt.Errorf("directory %q is full: %d MiB", p.dir, p.most>>20)
	}
	f, err := os.CreateTemp(p.dir, "new-") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(insns)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	p.size += int64(len(insns))
	return digest, nil
}

// look finds out how much there is, once.
func (p *Programs) look() error {
	if p.size >= 0 {
		return nil
	}
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	p.size = 0
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			p.size += info.Size()
		}
	}
	return nil
}

// Load returns the instructions of the digest that begins so, and the whole digest.
func (p *Programs) Load(prefix string) (insns []byte, digest string, err error) {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, "", err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), insnsSuffix)
		if !ok || !strings.HasPrefix(name, prefix) {
			continue
		}
		if digest != "" {
			return nil, "", fmt.Errorf("several programs begin with %q: give more of the digest", prefix)
		}
		digest = name
	}
	if digest == "" {
		return nil, "", fmt.Errorf("no program %q in %q", prefix, p.dir)
	}
	if insns, err = os.ReadFile(filepath.Join(p.dir, digest+insnsSuffix)); err != nil {
		return nil, "", err
	}
	if sum := sha256.Sum256(insns); hex.EncodeToString(sum[:]) != digest {
		return nil, "", fmt.Errorf("program %q isn't what its name says: the file was changed", digest)
	}
	return insns, digest, nil
}
