// Package grant says what a grant is: its bytes, its limits, and whether it
// stands at an instant.
//
// A grant is the signed, time-bound answer to a request; it is never edited,
// only ended. The package is arithmetic on values: it reads no clock, no file
// and no network, and it holds no key.
package grant

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Bounds of a grant.
const (
	UIDMin = 70000  // systemd's "unused" range, UIDS-GIDS.md
	UIDMax = 524287 // the end of it

	MaxDuration = 30 * 24 * time.Hour
	MaxDrain    = time.Hour
)

// A Person is whom a grant is for.
type Person struct {
	Name     string // account name, see [CheckPerson]
	UID      uint32 // the same on every host, never given to another person
	FullName string
}

// A Role is what a grant allows, as it was resolved when the grant was issued.
type Role struct {
	Name       string
	RunAs      []string      // accounts that commands may run as
	Commands   []Command     // what may be run with sudo
	AnyCommand bool          // every command, in place of Commands
	NoExec     bool          // sudo's NOEXEC: commands may not start others
	Network    []Destination // where the account may connect; none: not limited
	Drain      time.Duration // how long what runs at the end may go on
	Unguarded  bool          // what runs may take the agent, and what it lives by, away
	Unseen     bool          // its terminals are not recorded
	Typed      bool          // what is typed is recorded too, where the terminal shows it
	Strict     bool          // no session without a terminal, and none that cannot be recorded
	Signed     bool          // people's own keys sign for it, see [Words]
	Remove     []string      // kinds of leftovers that its end removes, sorted, see [Leftovers]
	Audit      Audit         // whether it is for a host that keeps its record whole
}

// Audit says what a role demands of the record.
type Audit uint32

// With either of the latter nobody is let in where the record does not work.
const (
	AuditAsCan Audit = iota // what cannot be recorded is told as missing
	AuditAlert              // a gap is an alert
	AuditEnd                // a gap ends the session
)

// Evidence is one person's part in a grant: the asking, or an approval.
type Evidence struct {
	Person string
	Factor string // such as "totp"
	At     time.Time
}

// A Grant lets a person act in a role on hosts for a time.
type Grant struct {
	ID        string // see [CheckID]
	Fleet     string
	Person    Person
	Role      Role
	Hosts     []string
	NotBefore time.Time // whole seconds, UTC
	NotAfter  time.Time // whole seconds, UTC; excluded
	Lease     time.Duration

	Request string // id of the request
	Digest  []byte // SHA-256 of the request as the approvers saw it
	Reason  string
	Ticket  string

	Asked     Evidence
	Approvals []Evidence
	Words     *Words // of a role that is signed for
}

// LiveAt reports whether g stands at now. The end is excluded: a grant that
// ends at noon does not open a door at noon.
func (g Grant) LiveAt(now time.Time) bool {
	return !now.Before(g.NotBefore) && now.Before(g.NotAfter)
}

// Drained is when what runs under g has to be over. Between the end and then
// nothing new is let in.
func (g Grant) Drained() time.Time { return g.NotAfter.Add(g.Role.Drain) }

// DrainsAt reports whether g is over at now, and what runs under it may go on.
func (g Grant) DrainsAt(now time.Time) bool {
	return !now.Before(g.NotAfter) && now.Before(g.Drained())
}

// On reports whether g names the host.
func (g Grant) On(host string) bool {
	_, on := slices.BinarySearch(g.Hosts, host)
	return on
}

// For is g as its host is given it: it names no other. What g costs to be on many
// hosts grows with their number, then, and not with the square of it, and a host
// is not told of the others. A grant that people signed is given as it is: they
// signed for all of its hosts.
func (g Grant) For(host string) Grant {
	if g.Words == nil && g.On(host) {
		g.Hosts = []string{host}
	}
	return g
}

// Allows reports whether the role lets argv be run as the account. It gives
// sudo's own answer to the rule made of this role for the cases that the
// agent has to attribute; the verdict itself stays sudo's.
func (r Role) Allows(runAs string, argv []string) bool {
	if !slices.Contains(r.RunAs, runAs) || len(argv) == 0 {
		return false
	}
	return r.AnyCommand || slices.ContainsFunc(r.Commands, func(c Command) bool { return c.Matches(argv) })
}

// ErrInvalid is the class of all errors of [Grant.Check].
var ErrInvalid = errors.New("invalid grant")

// Check reports everything in g that no grant may hold.
func (g Grant) Check() error {
	errs := []error{
		CheckID(g.ID), CheckFleet(g.Fleet), CheckPerson(g.Person.Name), CheckRole(g.Role.Name),
		CheckText("full name", g.Person.FullName, 100),
		CheckText("reason", g.Reason, 500), CheckText("ticket", g.Ticket, 100),
		g.checkTimes(), g.checkRole(), g.checkEvidence(), g.checkWords(),
	}
	if g.Person.UID < UIDMin || g.Person.UID > UIDMax {
		errs = append(errs, fmt.Errorf("uid %d is not in %d..%d", g.Person.UID, UIDMin, UIDMax))
	}
	if len(g.Hosts) == 0 || len(g.Hosts) > 10000 {
		errs = append(errs, errors.New("a grant names 1 to 10000 hosts"))
	}
	for _, h := range g.Hosts {
		errs = append(errs, CheckHost(h))
	}
	if !slices.IsSorted(g.Hosts) || len(slices.Compact(slices.Clone(g.Hosts))) != len(g.Hosts) {
		errs = append(errs, errors.New("hosts are sorted and each named once"))
	}
	if len(g.Digest) != 32 {
		errs = append(errs, errors.New("the request's digest has 32 bytes"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

func (g Grant) checkTimes() error {
	for _, t := range []time.Time{g.NotBefore, g.NotAfter} {
		if t.IsZero() || t.Nanosecond() != 0 || t.Location() != time.UTC || t.Year() > 9999 || t.Unix() < 0 {
			return errors.New("times are whole seconds in UTC from 1970 to 9999")
		}
	}
	if d := g.NotAfter.Sub(g.NotBefore); d <= 0 || d > MaxDuration {
		return fmt.Errorf("a grant lasts up to %v, this one %v", MaxDuration, d)
	}
	if g.Lease < 0 || g.Lease%time.Second != 0 {
		return errors.New("the lease is whole seconds")
	}
	return nil
}

func (g Grant) checkRole() error {
	r := g.Role
	var errs []error
	if r.AnyCommand && len(r.Commands) > 0 {
		errs = append(errs, errors.New("a role gives any command or lists them, not both"))
	}
	if len(r.RunAs) == 0 && (r.AnyCommand || len(r.Commands) > 0) {
		errs = append(errs, errors.New("a role with commands names whom they run as"))
	}
	for _, a := range r.RunAs {
		errs = append(errs, CheckAccount(a))
	}
	for _, c := range r.Commands {
		errs = append(errs, c.Check())
	}
	for _, d := range r.Network {
		errs = append(errs, d.Check())
	}
	if r.Drain < 0 || r.Drain > MaxDrain || r.Drain%time.Second != 0 {
		errs = append(errs, fmt.Errorf("a role drains for whole seconds, up to %v", MaxDrain))
	}
	if r.Audit > AuditEnd {
		errs = append(errs, fmt.Errorf("a role demands of its record what is not known here: %d", r.Audit))
	}
	if r.Unseen && (r.Typed || r.Strict) {
		errs = append(errs, errors.New("a role whose terminals are not recorded asks nothing of their record"))
	}
	return errors.Join(append(errs, r.checkRemove())...)
}

func (g Grant) checkEvidence() error {
	errs := []error{g.Asked.check()}
	if g.Asked.Person != g.Person.Name {
		errs = append(errs, errors.New("a grant is asked for by the person it is for"))
	}
	seen := map[string]bool{g.Person.Name: true}
	for _, a := range g.Approvals {
		errs = append(errs, a.check())
		if seen[a.Person] {
			errs = append(errs, fmt.Errorf("approval by %s does not count: own or twice", a.Person))
		}
		seen[a.Person] = true
	}
	return errors.Join(errs...)
}

func (e Evidence) check() error {
	if e.At.IsZero() || e.At.Nanosecond() != 0 {
		return errors.New("evidence has a time in whole seconds")
	}
	return errors.Join(CheckPerson(e.Person), CheckText("factor", e.Factor, 20))
}
