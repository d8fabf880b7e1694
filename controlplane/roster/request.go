package roster

import (
	"cmp"
	"slices"
	"time"

	"curfew.internal/grant"
)

// Asked is what a person asked for, and what the policy made of it at that
// time.
type Asked struct {
	Role     string        `json:"role"`
	Hosts    []string      `json:"hosts"` // sorted
	Duration time.Duration `json:"duration"`
	Reason   string        `json:"reason"`
	Ticket   string        `json:"ticket,omitempty"`
	Extends  string        `json:"extends,omitempty"` // the grant to go on from
	Factor   string        `json:"factor"`            // that she proved herself with
	Proof    *Proof        `json:"proof,omitempty"`   // an earlier one, on which it stands; nil: she proved herself for it
	Origin   *Origin       `json:"origin,omitempty"`  // the shell that it was typed in
	Start    time.Time     `json:"start,omitzero"`    // not before then; zero: at once
	Source   string        `json:"source,omitempty"`  // the address from which she asked; empty: not known
	UID      uint32        `json:"uid,omitempty"`     // hers, where her own key signs for it
	Risk     Risk          `json:"risk,omitzero"`
	Doubts   []Doubt       `json:"doubts,omitempty"` // by which more steps of the approval were asked

	Resolved grant.Role    `json:"resolved"`
	Lease    time.Duration `json:"lease,omitempty"`
	Needed   int           `json:"needed"` // approvals
	Policy   string        `json:"policy"` // version
}

// SameAs reports whether both ask for the same.
func (a Asked) SameAs(b Asked) bool {
	return a.Role == b.Role && slices.Equal(a.Hosts, b.Hosts) && a.Duration == b.Duration && a.Reason == b.Reason &&
		a.Ticket == b.Ticket && a.Extends == b.Extends && a.Start.Equal(b.Start) && a.origin() == b.origin()
}

func (a Asked) origin() Origin {
	if a.Origin == nil {
		return Origin{}
	}
	return *a.Origin
}

// A Request is what a person asked for, and what became of it.
type Request struct {
	Asked
	ID           string
	Person       string
	FullName     string
	Key          string
	State        string // see controlplane/request
	Digest       []byte // of what approvers are shown; where people's keys sign, what hers does
	Word         []byte // her passkey's signature on it, see [grant.Assertion]
	AskedAt      time.Time
	LapsesAt     time.Time
	Approvals    []Approval
	DecidedBy    string
	DecisionNote string
	Grant        *grant.Grant
	IssuedAt     time.Time
	EndedAt      time.Time
}

// An Approval is one person's yes.
type Approval struct {
	Person    string
	InPlaceOf string // who is away, and whose word it is; empty: her own
	Factor    string
	At        time.Time
	Note      string
	// For less than was asked: how long, and where. Zero: all of it.
	Duration time.Duration
	Hosts    []string
	Word     []byte // her passkey's signature, where people's keys sign
}

// Whose is whose word the approval is, among those who may approve.
func (a Approval) Whose() string { return cmp.Or(a.InPlaceOf, a.Person) }

// A Change is a step in a request's life. Empty fields change nothing.
type Change struct {
	State    string
	By, Note string // of the new state
	Approval *Approval
	Word     []byte       // of the requester's passkey
	Grant    *grant.Grant // with it, the request is issued
	Apart    []string     // roles of which its person may hold none at this time, or nothing changes
	Steps    []Decision
}
