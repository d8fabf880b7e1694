package controlplane

import (
	"context"
	"errors"
	"fmt"
	"time"

	"curfew.internal/clock"
)

// Retention says how long the record tells what sessions did: which programs
// they started, which files they opened, whom they called, what their terminals
// showed. Who had which privilege, and by whose word, is told for ever.
type Retention struct {
	// DefaultDays is for roles that have none of their own. Optional; for ever.
	DefaultDays int `yaml:"default_days,omitempty"`
	// RoleDays are by name, such as db-admin: 90.
	RoleDays map[string]int `yaml:"role_days,omitempty"`
	// TerminalDays is for recordings of terminals, of all roles. Optional; as
	// long as what else their role did.
	TerminalDays int `yaml:"terminal_days,omitempty"`
	// RoleTerminalDays are for those of one role, by its name.
	RoleTerminalDays map[string]int `yaml:"role_terminal_days,omitempty"`
}

const (
	day         = 24 * time.Hour
	maxDays     = 36500
	forgetEvery = time.Hour
)

func (r Retention) check() error {
	var errs []error
	if r.DefaultDays < 0 || r.DefaultDays > maxDays {
		errs = append(errs, errors.New("retention: default_days: write 1 or more days; leave it out, and it is for ever"))
	}
	if r.TerminalDays < 0 || r.TerminalDays > maxDays {
		errs = append(errs, errors.New("retention: terminal_days: write 1 or more days; leave it out, and it is as for the rest"))
	}
	for key, roles := range map[string]map[string]int{"role_days": r.RoleDays, "role_terminal_days": r.RoleTerminalDays} {
		for role, days := range roles {
			if days < 1 || days > maxDays {
				errs = append(errs, fmt.Errorf("retention: %s: %s: write 1 or more days", key, role))
			}
		}
	}
	return errors.Join(errs...)
}

// forEver reports whether nothing is ever deleted.
func (r Retention) forEver() bool {
	return r.DefaultDays == 0 && r.TerminalDays == 0 && len(r.RoleDays)+len(r.RoleTerminalDays) == 0
}

// of is how long what was done under a role is told; 0: for ever.
func (r Retention) of(role string) time.Duration {
	if days, ok := r.RoleDays[role]; ok {
		return time.Duration(days) * day
	}
	return time.Duration(r.DefaultDays) * day
}

// ofTerminals is how long recordings of a role's terminals are kept; 0: for
// ever.
func (r Retention) ofTerminals(role string) time.Duration {
	if days, ok := r.RoleTerminalDays[role]; ok {
		return time.Duration(days) * day
	}
	if r.TerminalDays > 0 {
		return time.Duration(r.TerminalDays) * day
	}
	return r.of(role)
}

// far is how much further than at the last look the clock may say that it is. One
// that says more was moved, or the server was off: it is believed once it has gone on from there for so long.
const far = day

var errDoubted = errors.New("it was moved, or no server ran")

// A doubt is whether the clock that says what is too old is right.
type doubt struct {
	since clock.Reading // zero: there is none
	aged  time.Time
}

// about reports how long it is until the clock is believed, which the record was last
// noted by at a time; 0: it is.
func (d *doubt) about(now clock.Reading, aged time.Time) time.Duration {
	if gone := now.Wall.Sub(aged); aged.IsZero() || gone > -far && gone < far {
		*d = doubt{}
		return 0
	}
	stood := now.Boot - d.since.Boot
	moved := now.Wall.Sub(d.since.Wall) - stood
	// A note that came meanwhile is another server's, by another clock.
	if d.since.Wall.IsZero() || !d.aged.Equal(aged) || moved.Abs() > forgetEvery {
		*d, stood = doubt{now, aged}, 0
	}
	return max(0, far-stood)
}

// age notes how far the record goes by now, if the clock is to be believed.
func (s *Server) age(ctx context.Context, now clock.Reading) error {
	aged, err := s.store.Aged(ctx)
	if err != nil {
		return err
	}
	if left := s.doubt.about(now, aged); left > 0 {
		return fmt.Errorf("the clock says %s, and at the last look it said %s: %w. Nothing is deleted by it before it has gone on from there for another %v",
			now.Wall.Format(time.RFC3339), aged.Format(time.RFC3339), errDoubted, left.Round(time.Minute))
	}
	return s.store.Age(ctx, now.Wall)
}

// retain deletes what is too old.
func (s *Server) retain(ctx context.Context) error {
	for {
		if err := s.forget(ctx); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "alert: what is too old is still in the record", "cause", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.clock.After(forgetEvery):
		}
	}
}

func (s *Server) forget(ctx context.Context) error {
	roles, err := s.store.Roles(ctx)
	if err != nil {
		return err
	}
	reading := s.clock.Now() // the one that is judged is the one that is deleted by
	if err := s.age(ctx, reading); errors.Is(err, errDoubted) && s.config.Retention.forEver() {
		return s.terminals.clear(ctx) // nothing would be deleted by it
	} else if err != nil {
		return err
	}
	now := reading.Wall
	for _, role := range roles {
		length := s.config.Retention.of(role)
		for length > 0 {
			n, err := s.store.Forget(ctx, role, now.Add(-length), now)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
		}
		if length := s.config.Retention.ofTerminals(role); length > 0 {
			if err := s.store.ForgetTerminals(ctx, role, now.Add(-length), now); err != nil {
				return err
			}
		}
	}
	return s.terminals.clear(ctx)
}
