// Package policy says who may ask for what, and what it takes to be given it.
//
// It reads roles and eligibility from files that people review, strictly: all
// mistakes are reported at once, each with its place and its fix, and a folder
// with one mistake is no policy. It is arithmetic on values: it opens no file,
// reads no clock and knows no database.
package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// A Role is what can be asked for.
type Role struct {
	Name           string
	Description    string
	AllHosts       bool
	Hosts          map[string][]string // label -> values; all labels have to match
	RunAs          []string
	Commands       []grant.Command
	AnyCommand     bool
	NoExec         bool
	Network        []grant.Destination
	MaxDuration    time.Duration
	ReasonRequired bool
	TicketRequired bool
	TicketPattern  *regexp.Regexp
	Steps          []Step   // of the approval; none: approved by the policy itself
	Approvers      []string // people of all steps, sorted; and requester:manager
	By             []string // the same, as it is written: names and group:NAME
	Count          int      // how many of them
	Pending        time.Duration
	Fresh          time.Duration // how old a proof of the requester's may be; 0: she proves herself for each request
	Lease          time.Duration
	Drain          time.Duration
	Managers       map[string]string // of those who ask, as the directory knows them
	Unguarded      bool              // it may take the agent away
	Audit          grant.Audit
	Unseen         bool     // its terminals are not recorded
	Typed          bool     // what is typed is recorded too
	Strict         bool     // no session without a recorded terminal
	Signed         bool     // people's own keys sign for it
	Remove         []string // kinds of leftovers, sorted
	When           []Condition
	Outside        bool    // nobody of the requester's reporting line approves
	Lending        Lending // whether approvers may be stood in for
}

// An Eligibility lets people ask for a role.
type Eligibility struct {
	Role   string
	People []string  // sorted, groups resolved
	Named  []string  // the same, as it is written: names and group:NAME
	From   time.Time // zero: since ever
	Until  time.Time // excluded; zero: no end
	Review time.Time // from then on, it is warned of until somebody has looked at it; zero: never
	At     Place
}

// A Place is where something stands in the files.
type Place struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// String is the place as compilers write theirs.
func (p Place) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// A Policy is a folder of files that holds.
type Policy struct {
	Version string // of the files: the same bytes, the same version
	Labels  map[string][]string
	Groups  map[string][]string
	// Directory says of the groups that a directory keeps what they are called
	// there; nobody is in them here until With says who.
	Directory map[string]string
	// Rotations are the groups of which one is on call; OnCall says who.
	Rotations map[string]Rotation
	// Calls says of the groups of which an on-call source says who is on call
	// what it calls them; Called takes what it said.
	Calls    map[string]string
	Roles    map[string]Role
	Eligible []Eligibility
	Apart    []Apart
	// Production says on which hosts nobody is to have a role unapproved.
	Production Production
	Kept       roster.Directory // what the directory was said to know
	Answer     roster.Calls     // what the on-call source was said to have said
	Places     map[string]Place // by field, such as roles.db-admin.max_duration
	Files      map[string][]byte
	AsOf       time.Time // who is on call then is; see OnCall
}

// version is a digest over names and bytes.
func version(files map[string][]byte) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%d %s %d ", len(name), name, len(files[name]))
		h.Write(files[name])
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// Covers reports whether a host with these labels is within the role.
func (r Role) Covers(labels map[string]string) bool {
	for key, values := range r.Hosts {
		if !slices.Contains(values, labels[key]) {
			return false
		}
	}
	return r.AllHosts || len(r.Hosts) > 0
}

// Selector is the role's hosts as people read them.
func (r Role) Selector() string {
	if r.AllHosts {
		return "all hosts"
	}
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(r.Hosts)) {
		parts = append(parts, key+"="+strings.Join(r.Hosts[key], "|"))
	}
	return strings.Join(parts, ", ")
}

// Demands is what the role demands of the record, for people.
func (r Role) Demands() string {
	return map[grant.Audit]string{
		grant.AuditAsCan: "not required", grant.AuditAlert: "required, a gap is an alert", grant.AuditEnd: "required, a gap ends the session",
	}[r.Audit]
}

// Freshness is how old a proof may be with which the role is asked for, for
// people.
func (r Role) Freshness() string {
	if r.Fresh == 0 {
		return "none"
	}
	return span(r.Fresh)
}

// Grant is what a grant of the role says of it.
func (r Role) Grant() grant.Role {
	return grant.Role{
		Name: r.Name, RunAs: r.RunAs, Commands: r.Commands, AnyCommand: r.AnyCommand, NoExec: r.NoExec, Network: r.Network,
		Drain: r.Drain, Unguarded: r.Unguarded, Remove: r.Remove, Audit: r.Audit, Unseen: r.Unseen, Typed: r.Typed, Strict: r.Strict, Signed: r.Signed,
	}
}

// Stands reports whether the entry counts at that instant.
func (e Eligibility) Stands(at time.Time) bool {
	return !at.Before(e.From) && (e.Until.IsZero() || at.Before(e.Until))
}

// EligibleUntil reports whether the person may ask for the role at that
// instant, and until when without a gap (zero: no end). Of her lines, one goes on
// from another that it begins within, or as it ends.
func (p Policy) EligibleUntil(person, role string, at time.Time) (until time.Time, ok bool) {
	var hers []Eligibility
	for _, e := range p.Eligible {
		if e.Role == role && slices.Contains(e.People, person) && (e.Until.IsZero() || at.Before(e.Until)) {
			hers = append(hers, e)
		}
	}
	slices.SortStableFunc(hers, func(a, b Eligibility) int { return a.From.Compare(b.From) })
	until = at
	for _, e := range hers {
		switch {
		case e.From.After(until) && ok:
			return until, true
		case e.From.After(until):
			return time.Time{}, false
		case e.Until.IsZero():
			return time.Time{}, true
		case e.Until.After(until):
			until = e.Until
		}
		ok = true
	}
	if !ok {
		until = time.Time{}
	}
	return until, ok
}

// EndsWith is the person's line for the role that ends then, which is when she is
// eligible until at that instant: one that stands already, if there is one.
func (p Policy) EndsWith(person, role string, at, until time.Time) (e Eligibility, ok bool) {
	for _, l := range p.Eligible {
		if l.Role != role || !l.Until.Equal(until) || !slices.Contains(l.People, person) {
			continue
		}
		if l.Stands(at) {
			return l, true
		}
		if !ok {
			e, ok = l, true
		}
	}
	return e, ok
}

// eligibleFrom is when the person, who may not ask for the role at that instant,
// may next; zero: never.
func (p Policy) eligibleFrom(person, role string, at time.Time) time.Time {
	var next time.Time
	for _, e := range p.Eligible {
		if e.Role == role && e.From.After(at) && slices.Contains(e.People, person) && (next.IsZero() || e.From.Before(next)) {
			next = e.From
		}
	}
	return next
}

// MayApprove lists who may approve the person's request for the role: never
// herself.
func (p Policy) MayApprove(role, person string) []string {
	return p.Roles[role].of(p.Roles[role].Approvers, person)
}
