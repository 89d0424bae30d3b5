package audit

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"

	"github.com/coreos/go-systemd/v22/journal"
)

// Sink takes lines. What fails may work the next time.
type Sink interface {
	// Write writes the lines, all or, as far as that can be, none.
	Write([]Line) error
	Close() error
	fmt.Stringer // what users call it
}

// Names of sinks that are no files.
const (
	Stdout   = "stdout"
	Stderr   = "stderr"
	Journald = "journald"
	Syslog   = "syslog"
)

// IsFile says whether target, as users give it, is the path of a file.
func IsFile(target string) bool {
	switch target {
	case Stdout, Stderr, Journald, Syslog:
		return false
	}
	return true
}

// Open returns the sink that target names. Whether it works is seen when it is
// written to. stream is where stdout or stderr go.
func Open(target string, stream io.Writer) Sink {
	switch target {
	case Stdout, Stderr:
		return &streamSink{target, stream}
	case Journald:
		return journalSink{}
	case Syslog:
		return &syslogSink{}
	}
	return NewFile(target)
}

// Check says whether target works now, and if not, what to do.
func Check(target string) error {
	switch target {
	case Stdout, Stderr:
		return nil
	case Journald:
		if !journal.Enabled() {
			return fmt.Errorf("there is no journal at /run/systemd/journal/socket: is systemd-journald running? Give a file instead")
		}
		return nil
	case Syslog:
		s := &syslogSink{}
		defer s.Close()
		if err := s.open(); err != nil {
			return fmt.Errorf("there is no syslog at /dev/log: %w; is a syslog daemon running? Give a file instead", err)
		}
		return nil
	}
	f := NewFile(target)
	defer f.Close()
	return f.check()
}

// streamSink writes to a stream that is open.
type streamSink struct {
	name string
	w    io.Writer
}

func (s *streamSink) String() string { return s.name }
func (s *streamSink) Close() error   { return nil }

func (s *streamSink) Write(lines []Line) error {
	if _, err := s.w.Write(join(lines)); err != nil {
		return fmt.Errorf("write to %s: %w", s.name, err)
	}
	return nil
}

func join(lines []Line) []byte {
	var b bytes.Buffer
	for _, l := range lines {
		b.Write(l.Text)
	}
	return b.Bytes()
}

// journalSink writes to systemd's journal.
type journalSink struct{}

func (journalSink) String() string { return Journald }
func (journalSink) Close() error   { return nil }

func (journalSink) Write(lines []Line) error {
	for _, l := range lines {
		priority := journal.PriInfo
		if l.Level >= slog.LevelWarn {
			priority = journal.PriWarning
		}
		text := string(bytes.TrimSuffix(l.Text, []byte("\n")))
		if err := journal.Send(text, priority, map[string]string{"SYSLOG_IDENTIFIER": "bpfbroker"}); err != nil {
			return fmt.Errorf("write to the journal: %w", err)
		}
	}
	return nil
}

// syslogSink writes to /dev/log.
type syslogSink struct{ w *syslog.Writer }

func (s *syslogSink) String() string { return Syslog }

func (s *syslogSink) open() (err error) {
	if s.w == nil {
		s.w, err = syslog.New(syslog.LOG_AUTHPRIV|syslog.LOG_INFO, "bpfbroker")
	}
	return err
}

func (s *syslogSink) Write(lines []Line) error {
	if err := s.open(); err != nil {
		return fmt.Errorf("connect to syslog: %w", err)
	}
	for _, l := range lines {
		say := s.w.Info
		if l.Level >= slog.LevelWarn {
			say = s.w.Warning
		}
		if err := say(string(l.Text)); err != nil {
			return fmt.Errorf("write to syslog: %w", err)
		}
	}
	return nil
}

func (s *syslogSink) Close() error {
	if s.w == nil {
		return nil
	}
	return s.w.Close()
}

// Stream is the file that a target of that name is written to: of this process, for
// whoever passes it on. nil: none.
func Stream(target string) *os.File {
	switch target {
	case Stdout:
		return os.Stdout
	case Stderr:
		return os.Stderr
	}
	return nil
}
