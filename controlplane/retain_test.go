package controlplane

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"curfew.internal/clock"
	"curfew.internal/controlplane/store"
)

func TestRetention(t *testing.T) {
	r := Retention{DefaultDays: 365, RoleDays: map[string]int{"db-admin": 90}}
	for role, want := range map[string]time.Duration{"db-admin": 90 * 24 * time.Hour, "other": 365 * 24 * time.Hour} {
		if got := r.of(role); got != want {
			t.Errorf("%s: %v, want %v", role, got, want)
		}
	}
	if got := (Retention{}).of("db-admin"); got != 0 {
		t.Errorf("nothing is said, and it is deleted after %v", got)
	}
	if got := r.ofTerminals("db-admin"); got != 90*24*time.Hour {
		t.Errorf("recordings are kept for %v where nothing is said of them", got)
	}
	r.TerminalDays, r.RoleTerminalDays = 30, map[string]int{"other": 14}
	for role, want := range map[string]time.Duration{"db-admin": 30 * 24 * time.Hour, "other": 14 * 24 * time.Hour} {
		if got := r.ofTerminals(role); got != want {
			t.Errorf("recordings of %s: %v, want %v", role, got, want)
		}
	}
	for _, c := range []struct {
		name string
		r    Retention
		want string // empty: it is right
	}{
		{"nothing", Retention{}, ""},
		{"both", r, ""},
		{"a role with none", Retention{RoleDays: map[string]int{"db-admin": 0}}, "retention: role_days: db-admin: write 1"},
		{"a role whose recordings are kept for no day", Retention{RoleTerminalDays: map[string]int{"db-admin": 0}}, "retention: role_terminal_days: db-admin: write 1"},
		{"recordings for less than none", Retention{TerminalDays: -1}, "terminal_days"},
		{"less than none", Retention{DefaultDays: -1}, "default_days"},
		{"longer than a clock counts", Retention{DefaultDays: 1 << 40}, "default_days"},
	} {
		err := c.r.check()
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A clock that jumped is not believed at once: by one that is a year ahead, all that
// the record tells would be too old.
func TestAClockThatJumpedIsDoubted(t *testing.T) {
	type look struct {
		wall, boot, aged time.Duration // aged 0: it was never noted
		left             time.Duration
	}
	const year, start = 365 * day, 1000 * time.Hour
	for _, c := range []struct {
		name  string
		looks []look
	}{
		{"the first look of all", []look{{start, 1, 0, 0}}},
		{"an hour goes by", []look{{start + time.Hour, 1, start, 0}}},
		{"it is set back by a minute", []look{{start - time.Minute, 1, start, 0}}},
		{"it jumps ahead by a year, and back", []look{{start + year, 1, start, day}, {start + year + time.Hour, 1 + time.Hour, start, day - time.Hour}, {start + 2*time.Hour, 1 + 2*time.Hour, start, 0}}},
		{"it jumps back by a year", []look{{start + year, 1, start + 2*year, day}}},
		{"it goes on from there for a day", []look{{start + year, 1, start, day}, {start + year + day, 1 + day, start, 0}}},
		{"it jumps again", []look{{start + year, 1, start, day}, {start + 2*year, 1 + day, start, day}, {start + 2*year + day, 1 + 2*day, start, 0}}},
		{"it goes too fast", []look{{start + year, 1, start, day}, {start + 2*year, 1 + 2*day, start, day}}},
		{"another server goes by another clock", []look{{start + year, 1, start, day}, {start + year + day, 1 + day, start + time.Hour, day}}},
		{"it jumps, and later jumps anew", []look{{start + year, 1, start, day}, {start, 2, start, 0}, {start + year + day, 1 + day, start, day}}},
		{"the machine starts anew", []look{{start + year, day, start, day}, {start + year + time.Hour, 1, start, day}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d doubt
			for i, l := range c.looks {
				var aged time.Time
				if l.aged > 0 {
					aged = time.Unix(0, int64(l.aged)).UTC()
				}
				if left := d.about(clock.Reading{Wall: time.Unix(0, int64(l.wall)).UTC(), Boot: l.boot}, aged); left != l.left {
					t.Errorf("look %d: it is doubted for %v, want %v", i+1, left, l.left)
				}
			}
		})
	}
}

// ticking is a clock that stands where it is put.
type ticking struct{ now clock.Reading }

func (c *ticking) Now() clock.Reading                   { return c.now }
func (c *ticking) After(time.Duration) <-chan time.Time { return nil }

// keeping is a server of an empty record, and its clock.
func keeping(t *testing.T, r Retention) (*Server, *ticking) {
	t.Helper()
	kept, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), "lab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kept.Close() })
	c := &ticking{clock.Reading{Wall: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}}
	return &Server{plane: &plane{store: kept, clock: c, config: Config{Retention: r}}, terminals: &terminals{Store: kept}}, c
}

// While the clock is doubted nothing is deleted, and the record's age is not noted by it.
func TestNothingIsDeletedByAClockThatJumped(t *testing.T) {
	ctx := t.Context()
	s, c := keeping(t, Retention{DefaultDays: 1})
	start := c.now.Wall
	if err := s.forget(ctx); err != nil {
		t.Fatal(err)
	}
	c.now = clock.Reading{Wall: start.Add(365 * day), Boot: time.Hour}
	if err := s.forget(ctx); err == nil || !strings.Contains(err.Error(), "it was moved") {
		t.Errorf("a year later within an hour: %v", err)
	}
	if aged, err := s.store.Aged(ctx); err != nil || !aged.Equal(start) {
		t.Errorf("it was noted at %v: %v", aged, err)
	}
	c.now = clock.Reading{Wall: start.Add(2 * time.Hour), Boot: 2 * time.Hour}
	if err := s.forget(ctx); err != nil {
		t.Error(err)
	}
}

// Where nothing is ever deleted, nobody is told that something is not.
func TestAClockThatJumpedIsNoAlertWhereAllIsKept(t *testing.T) {
	ctx := t.Context()
	s, c := keeping(t, Retention{})
	start := c.now.Wall
	for _, now := range []clock.Reading{c.now, {Wall: start.Add(3 * day), Boot: time.Hour}} {
		c.now = now
		if err := s.forget(ctx); err != nil {
			t.Error(err)
		}
	}
	if aged, err := s.store.Aged(ctx); err != nil || !aged.Equal(start) {
		t.Errorf("it was noted at %v: %v", aged, err)
	}
}
