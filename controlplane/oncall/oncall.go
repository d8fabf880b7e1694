// Package oncall asks a file or a command who is on call.
//
// It knows nothing of roles: who of an answer may approve what, the policy
// says. An answer counts for a bounded time, and after that there is none: it
// never says that somebody is on call who was named by nobody of late.
package oncall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
)

// Config says who is asked.
type Config struct {
	// File holds the answer: whoever may write it says who is on call.
	File string `yaml:"file,omitempty"`
	// Command is a program that prints the answer, with its arguments, without
	// a shell; in place of file. It runs as the server's user, for 10 seconds
	// at most.
	Command []string `yaml:"command,omitempty"`
	// Environment is all that the command finds in its environment besides
	// PATH. A secret stands in a file, which it is told of here. Optional.
	Environment map[string]string `yaml:"environment,omitempty"`
	// Every is the time between two questions. Optional; 1m.
	Every time.Duration `yaml:"every,omitempty"`
	// Keep is how long an answer counts while no other comes; then nobody is
	// on call. Optional; 5m.
	Keep time.Duration `yaml:"keep,omitempty"`
}

// What Config leaves out.
const (
	every = time.Minute
	keep  = 5 * time.Minute
)

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Check reports all that is wrong with the configuration.
func (c *Config) Check() error {
	if c == nil {
		return nil
	}
	var errs []error
	if (c.File == "") == (len(c.Command) == 0) {
		errs = append(errs, errors.New("on_call: name a file or a command, one of them"))
	}
	if c.File != "" && !filepath.IsAbs(c.File) || len(c.Command) > 0 && !filepath.IsAbs(c.Command[0]) {
		errs = append(errs, errors.New("on_call: write an absolute path"))
	}
	for name := range c.Environment {
		if !variable.MatchString(name) || len(c.Command) == 0 {
			errs = append(errs, fmt.Errorf("on_call.environment: %.40q is no name of a variable, or there is no command to find it", name))
		}
	}
	if c.Every < 0 || c.Every > 0 && c.Every < time.Second || c.Keep < 0 || c.keep() < 2*c.every() || c.Keep > 24*time.Hour {
		errs = append(errs, errors.New("on_call: every is a second at least, and keep twice as long as every at least, up to 24h"))
	}
	return errors.Join(errs...)
}

func (c *Config) every() time.Duration {
	if c.Every == 0 {
		return every
	}
	return c.Every
}

func (c *Config) keep() time.Duration {
	if c.Keep == 0 {
		return max(keep, 2*c.every())
	}
	return c.Keep
}

// A Source is who is asked.
type Source struct {
	config  *Config // nil: nobody
	clock   clock.Clock
	log     *slog.Logger
	changed func() // there is another answer, or none any more

	mu    sync.Mutex // guards what follows
	last  map[string][]roster.Turn
	until time.Time // the last one counts
	why   string    // the question after it brought none; empty: it did
}

// New makes a source that calls changed, if there is one, whenever it may say
// something else.
func New(c *Config, k clock.Clock, log *slog.Logger, changed func()) *Source {
	return &Source{config: c, clock: k, log: log, changed: changed}
}

// Calls is who is on call, and until when that answer counts.
func (s *Source) Calls() (c roster.Calls, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.config == nil:
		return roster.Calls{Why: "the server's configuration names no on-call source"}, time.Time{}
	case s.until.IsZero() && s.why == "":
		return roster.Calls{Why: "the on-call source was not asked yet"}, time.Time{}
	case s.until.IsZero():
		return roster.Calls{Why: "the on-call source has given no answer yet"}, time.Time{}
	case !s.clock.Now().Wall.Before(s.until):
		return roster.Calls{Why: "the last answer of the on-call source counted until " + s.until.UTC().Format("2006-01-02 15:04 MST")}, time.Time{}
	}
	return roster.Calls{Rotations: s.last}, s.until
}

// Trouble says, for those who run the server, what is wrong with the source at
// present, if something is.
func (s *Source) Trouble() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config == nil || s.why == "" {
		return ""
	}
	if s.until.IsZero() {
		return "the on-call source gives no answer: " + s.why
	}
	return fmt.Sprintf("the on-call source gives no answer: %s; the one before counts until %s", s.why, s.until.UTC().Format(time.RFC3339))
}

// Run asks, from time to time, until ctx is done.
func (s *Source) Run(ctx context.Context) error {
	if s.config == nil {
		return nil
	}
	for {
		s.Ask(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-s.clock.After(s.config.every()):
		}
	}
}

// Ask asks once.
func (s *Source) Ask(ctx context.Context) {
	if s.config == nil {
		return
	}
	asked := s.clock.Now().Wall
	turns, err := s.ask(ctx)
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	was := s.why
	if s.why = ""; err != nil {
		s.why = err.Error()
	} else {
		s.last, s.until = turns, asked.Add(s.config.keep())
	}
	now, until := s.why, s.until
	s.mu.Unlock()
	switch {
	case now != "" && now != was:
		s.log.ErrorContext(ctx, "alert: the on-call source gives no answer: what it said last counts for a while, then nobody is on call", "until", until, "cause", now)
	case now == "" && was != "":
		s.log.InfoContext(ctx, "the on-call source answers again")
	}
	s.changed()
}

func (s *Source) ask(ctx context.Context) (map[string][]roster.Turn, error) {
	read := s.run
	if s.config.File != "" {
		read = func(context.Context) ([]byte, error) { return readFile(s.config.File) }
	}
	text, err := read(ctx)
	if err != nil {
		return nil, err
	}
	return Parse(text)
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	return io.ReadAll(io.LimitReader(f, maxBytes+1))
}
