package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"curfew.internal/canon"
	"curfew.internal/controlplane/request"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// The states of a request's life, as messages and the store have them.
const (
	stateAsked     = string(request.Asked)
	stateIssued    = string(request.Issued)
	stateDenied    = string(request.Denied)
	stateWithdrawn = string(request.Withdrawn)
	stateLapsed    = string(request.Lapsed)
	stateEnded     = string(request.Ended)
	stateRevoked   = string(request.Revoked)
)

func newID(prefix string) string { return prefix + "-" + strings.ToLower(rand.Text()[:16]) }

// digest is over all that an approver is shown of a request. Programs echo
// it; none has to compute it.
func digest(r roster.Request) []byte {
	var w canon.Writer
	w.Text(1, r.ID)
	w.Text(2, r.Person)
	w.Text(3, r.Role)
	w.Texts(4, r.Hosts)
	w.Uint(5, uint64(r.Duration/time.Second)) //nolint:gosec // the policy refuses negative ones
	w.Text(6, r.Reason)
	w.Text(7, r.Ticket)
	w.Text(8, r.Extends)
	w.Texts(9, r.Resolved.RunAs)
	w.Texts(10, commands(r.Resolved))
	w.Bool(11, r.Resolved.NoExec)
	for _, d := range r.Resolved.Network {
		w.Text(12, d.String())
	}
	w.Texts(13, r.Resolved.Remove)
	w.Uint(14, uint64(r.Resolved.Drain/time.Second)) //nolint:gosec // the policy refuses negative ones
	w.Bool(15, r.Resolved.Unguarded)
	if o := r.Origin; o != nil {
		w.Texts(16, []string{o.Host, o.Session, o.Command, o.Directory})
	}
	w.Uint(17, uint64(r.Resolved.Audit))
	if !r.Start.IsZero() {
		w.Uint(18, uint64(r.Start.Unix())) //nolint:gosec // it was in the future
	}
	w.Bool(19, r.Resolved.Unseen)
	w.Bool(20, r.Resolved.Typed)
	w.Bool(21, r.Resolved.Strict)
	w.Text(22, r.Source)
	for _, d := range r.Doubts {
		w.Text(23, d.Because)
	}
	if p := r.Proof; p != nil {
		w.Text(24, proofText(*p, r.AskedAt))
	}
	sum := sha256.Sum256(w.Bytes())
	return sum[:]
}

// commands is the role's commands as people read them.
func commands(r grant.Role) []string {
	if r.AnyCommand {
		return []string{"ALL"}
	}
	all := make([]string, len(r.Commands))
	for i, c := range r.Commands {
		all[i] = c.String()
	}
	return all
}

func sameRole(a, b grant.Role) bool {
	x, _ := json.Marshal(a) // roles always marshal
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

// question is what the policy is asked. An extension is judged by all the time
// from now that it would make: no grant reaches further than the role's
// longest.
func (sc scene) question(r roster.Request) roster.Question {
	return roster.Question{
		Person: r.Person, Role: r.Role, Hosts: r.Hosts, Duration: sc.base().Sub(sc.from()) + r.Duration, Reason: r.Reason, Ticket: r.Ticket,
		Source: r.Source, Risk: r.Risk, Doubts: r.Doubts,
	}
}

// begin is when a grant would begin: now, or when it is to. One that goes on
// from another does not begin before that.
func (sc scene) begin() time.Time {
	at := sc.now
	if sc.start.After(at) {
		at = sc.start
	}
	if o := sc.old; o != nil && o.State == stateIssued && o.Grant.NotBefore.After(at) {
		at = o.Grant.NotBefore
	}
	return at
}

// from is that to the second, base what its length counts from: the same, or
// the end of the grant that it goes on from.
func (sc scene) from() time.Time { return sc.begin().UTC().Truncate(time.Second) }

func (sc scene) base() time.Time {
	if o := sc.old; o != nil && o.State == stateIssued && o.Grant.NotAfter.After(sc.from()) {
		return o.Grant.NotAfter
	}
	return sc.from()
}

// scene is what a decision is taken on, besides the request itself.
type scene struct {
	now    time.Time
	start  time.Time // not before then
	hosts  []roster.Host
	person roster.Person // for whom the request is
	old    *roster.Request
	keys   *grant.Roster       // of people, that hosts hold; nil: none
	lent   []roster.Delegation // that stand now
}

func (s *Server) scene(ctx context.Context, r roster.Request) (scene, error) {
	v, err := s.look(ctx, s.now())
	if err != nil {
		return v, err
	}
	v.start = r.Start
	if v.hosts, err = s.liveHosts(ctx); err != nil {
		return v, err
	}
	if v.person, err = s.Store.Person(ctx, r.Person); err != nil {
		return v, err
	}
	if r.Extends != "" {
		old, err := s.Store.Request(ctx, r.Extends)
		if err != nil {
			return v, err
		}
		v.old = &old
	}
	return v, nil
}

// look is the part of a scene that is the same for every request, without the
// hosts.
func (s *Server) look(ctx context.Context, now time.Time) (v scene, err error) {
	v.now = now
	if v.keys, err = s.keysHeld(ctx); err != nil {
		return v, err
	}
	v.lent, err = s.lent(ctx, now)
	return v, err
}

// liveHosts are the hosts of the fleet.
func (s *Server) liveHosts(ctx context.Context) ([]roster.Host, error) {
	all, err := s.Store.Hosts(ctx)
	return slices.DeleteFunc(all, func(h roster.Host) bool { return h.Decommissioned }), err
}

// bare is the request as if nobody had to sign for it: what it would come to,
// while the signatures are not there yet.
func bare(r roster.Request) roster.Request {
	r.Resolved.Signed = false
	return r
}

// grantFor is the grant that answers the request.
func (s *Server) grantFor(r roster.Request, v roster.Verdict, sc scene, approvals []roster.Approval) (*grant.Grant, error) {
	// All that was given counts here, also a word that is not needed any more:
	// it only narrows.
	hosts, length := request.Least(r.Asked, r.Approvals)
	g := &grant.Grant{
		ID: newID("g"), Fleet: s.Fleet,
		Person: grant.Person{Name: sc.person.Name, UID: sc.person.UID, FullName: sc.person.FullName},
		Role:   r.Resolved, Hosts: hosts, NotBefore: sc.from(), NotAfter: sc.base().Add(length), Lease: v.Lease,
		Request: r.ID, Digest: r.Digest, Reason: r.Reason, Ticket: r.Ticket,
		Asked: grant.Evidence{Person: r.Person, Factor: r.Factor, At: r.AskedAt.UTC().Truncate(time.Second)},
	}
	for _, a := range approvals {
		g.Approvals = append(g.Approvals, grant.Evidence{Person: a.Person, Factor: a.Factor, At: a.At.UTC().Truncate(time.Second)})
	}
	if r.Resolved.Signed {
		g.Lease = r.Lease // which is signed for
		var err error
		if g.Words, err = words(r, approvals); err != nil {
			return nil, err
		}
	}
	if g.NotAfter.After(s.Authority().GoodUntil()) {
		return nil, roster.Refuse(roster.Conflict, "the fleet's grant key ends before the grant would: an admin has to run `curfew-server rotate-key`")
	}
	return g, invalid(g.Check())
}

// issue is the change by which a request is answered.
func (s *Server) issue(r roster.Request, v roster.Verdict, sc scene, approvals []roster.Approval) (roster.Change, error) {
	g, err := s.grantFor(r, v, sc, approvals)
	if err != nil {
		return roster.Change{}, err
	}
	if err := s.wouldCount(g, v, sc); err != nil {
		return roster.Change{}, err
	}
	return roster.Change{State: stateIssued, Grant: g, Steps: []roster.Decision{{
		At: sc.now, What: roster.SignedStep, Text: fmt.Sprintf("grant %s until %s, by policy %s", g.ID, g.NotAfter.Format(time.RFC3339), v.Version),
	}}}, nil
}

// decided says what has become of a request that nobody can decide any more.
func decided(r roster.Request) error {
	switch r.State {
	case stateIssued:
		return roster.Refuse(roster.Conflict, "this request was approved already: `curfew revoke %s` ends its grant", r.Grant.ID)
	case stateDenied:
		return roster.Refuse(roster.Conflict, "this request was denied by %s", r.DecidedBy)
	case stateWithdrawn:
		return roster.Refuse(roster.Conflict, "this request was withdrawn by %s", r.Person)
	case stateLapsed:
		return roster.Refuse(roster.Conflict, "this request has lapsed, because nobody decided on it in time: it has to be asked again")
	case stateEnded, stateRevoked:
		return roster.Refuse(roster.Conflict, "the grant of this request is over")
	}
	return nil
}

// Due ends by time what time ends: requests that nobody decided on, and
// grants that are over. One of them that cannot be ended keeps no other.
func (s *Server) Due(ctx context.Context) error {
	ids, err := s.Store.Due(ctx, s.now())
	if err != nil {
		return fmt.Errorf("look for what is over: %w", err)
	}
	var errs []error
	for _, id := range ids {
		now := s.now()
		_, err := s.Store.Change(ctx, id, now, func(r roster.Request) (roster.Change, error) { return overBy(r, now), nil })
		if err != nil {
			errs = append(errs, fmt.Errorf("end %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// A host has so long to sign for a grant's end before its silence is an alert,
// and is waited for so long.
const (
	silence   = time.Minute
	patiently = 30 * 24 * time.Hour
)

// Unconfirmed returns the ends of grants for which their hosts are late to sign
// that nothing is left.
func (s *Server) Unconfirmed(ctx context.Context) ([]roster.Unconfirmed, error) {
	return s.Store.Unconfirmed(ctx, s.now().Add(-patiently), s.now().Add(-silence))
}

// Alert tells, once each, of ends of which no host has signed that nothing is
// left, in the log and in the story of the grant; and in the log of what hosts told that somebody
// should look at, and of a roster that ends soon.
func (s *Server) Alert(ctx context.Context) error {
	return errors.Join(s.alertUnconfirmed(ctx), s.alertTold(ctx), s.tellTurnedAway(ctx), s.alertRoster(ctx))
}

func (s *Server) alertUnconfirmed(ctx context.Context) error {
	all, err := s.Unconfirmed(ctx)
	if err != nil {
		return fmt.Errorf("look for ends without a clean receipt: %w", err)
	}
	for _, u := range all {
		if u.Told {
			continue
		}
		now, text := s.now(), "the host has not signed that nothing is left"
		if u.Left {
			text = "the host has signed that something is left"
		}
		_, err := s.Store.Change(ctx, u.Request, now, func(roster.Request) (roster.Change, error) {
			return roster.Change{Steps: []roster.Decision{{
				At: now, What: roster.UnconfirmedStep, Host: u.Host, Person: u.Person,
				Text: "ended, and " + text,
			}}}, nil
		})
		if is(err, roster.ErrExists) {
			continue // another server told it
		}
		if err != nil {
			return fmt.Errorf("note that %s is unconfirmed: %w", u.Grant, err)
		}
		s.Log.ErrorContext(ctx, "alert: a grant ended, and its end is not confirmed", "what", text, "grant", u.Grant, "person", u.Person, "host", u.Host, "since", u.EndedAt)
	}
	return nil
}

// overBy is what time makes of a request.
func overBy(r roster.Request, now time.Time) roster.Change {
	switch {
	case r.State == stateAsked && !now.Before(r.LapsesAt):
		return roster.Change{State: stateLapsed, Steps: []roster.Decision{{At: now, What: stateLapsed, Text: "nobody decided in time"}}}
	case r.State == stateIssued && !now.Before(r.Grant.Drained()):
		return roster.Change{State: stateEnded, Steps: []roster.Decision{{At: now, What: stateEnded, Text: "its time is over"}}}
	}
	return roster.Change{}
}

// Recheck revokes the grants of people whom the policy no longer makes eligible
// for their roles. It is for when the policy has changed.
func (s *Server) Recheck(ctx context.Context) error {
	open, err := s.Store.Requests(ctx, false, maxOpen)
	if err != nil {
		return fmt.Errorf("look at what stands: %w", err)
	}
	var errs []error
	for _, r := range open {
		if r.State != stateIssued || s.eligible(r) {
			continue
		}
		now := s.now()
		_, err := s.Store.Change(ctx, r.ID, now, func(r roster.Request) (roster.Change, error) {
			if r.State != stateIssued {
				return roster.Change{}, nil
			}
			const why = "the policy has changed: no longer eligible"
			return roster.Change{State: stateRevoked, Note: why, Steps: []roster.Decision{{At: now, What: stateRevoked, Text: why}}}, nil
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("revoke %s: %w", r.Grant.ID, err))
			continue // it keeps no other
		}
		s.Log.InfoContext(ctx, "grant revoked, its person is not eligible any more", "grant", r.Grant.ID, "person", r.Person, "role", r.Role)
	}
	return errors.Join(errs...)
}

// maxOpen is more than there can be: a request takes a person and a code.
const maxOpen = 1 << 20

// eligible reports whether the policy in force would have let the request's
// person have its grant when it was issued, or began if that came later: a grant
// of the last day of an eligibility may end after that day.
func (s *Server) eligible(r roster.Request) bool {
	at := r.IssuedAt
	if r.Grant.NotBefore.After(at) {
		at = r.Grant.NotBefore
	}
	return slices.ContainsFunc(s.Rules.Offers(r.Person, nil, at), func(o roster.Offer) bool { return o.Role.Name == r.Role })
}
