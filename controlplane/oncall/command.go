package oncall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// within is how long a command may take. Then it is killed, with what it
// started.
const within = 10 * time.Second

var errTooLong = errors.New("it was not done within " + within.String())

// run has the command give its answer. It finds nothing of the server's: its
// environment is the configuration's, its input is empty, and it stands in /.
func (s *Source) run(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, within, errTooLong)
	defer cancel()
	out, said := &bounded{most: maxBytes + 1}, &bounded{most: 4096}
	c := exec.CommandContext(ctx, s.config.Command[0], s.config.Command[1:]...) //nolint:gosec // the operator names it
	c.Dir, c.Stdout, c.Stderr = "/", out, said
	c.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin"}
	for _, name := range slices.Sorted(maps.Keys(s.config.Environment)) {
		c.Env = append(c.Env, name+"="+s.config.Environment[name])
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second // for what keeps its output open
	err := c.Run()
	switch {
	case context.Cause(ctx) == errTooLong: //nolint:errorlint // it is never wrapped
		err = errTooLong
	case err == nil && out.Len() > maxBytes:
		err = fmt.Errorf("it says more than %d bytes", maxBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("run %s: %w%s", s.config.Command[0], err, said.line())
	}
	return out.Bytes(), nil
}

// bounded keeps the beginning of what is written, and lets the rest go, so that
// who writes is not hindered.
type bounded struct {
	bytes.Buffer
	most int
}

// Write implements [io.Writer].
func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), max(0, b.most-b.Len()))])
	return len(p), nil
}

// line is the first line of what a program complained of, as a log may hold it.
func (b *bounded) line() string {
	first, _, _ := strings.Cut(strings.TrimSpace(b.String()), "\n")
	first = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, first)
	if first == "" {
		return ""
	}
	return fmt.Sprintf(": %.200s", first)
}
