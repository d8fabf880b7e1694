package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/wire/api"
)

var (
	errNoSignPages = roster.Refuse(roster.Conflict, "people's own passkeys sign for this role, and this server has no pages on which they could: an admin has to configure `web`")
	errNoKeys      = roster.Refuse(roster.Conflict, "people's own keys sign for this role, and no roster of them was published: an owner has to (`curfew roster`)")
	errOtherSigned = roster.Refuse(roster.Conflict, "this is not the request as you were shown it: look at it again, then sign")
)

// asked is what the requester of r signs.
func (s *Server) asked(r roster.Request) grant.Ask {
	return grant.Ask{
		Fleet: s.Fleet, Request: r.ID, Person: grant.Person{Name: r.Person, UID: r.UID}, Role: r.Resolved, Hosts: r.Hosts, Length: r.Duration,
		Start: r.Start, Lease: r.Lease, Reason: r.Reason, Ticket: r.Ticket, At: r.AskedAt.UTC().Truncate(time.Second),
		Needed: uint64(r.Needed), Shown: digest(r), //nolint:gosec // a handful
	}
}

// toSign gives the request its digest: of what it shows, or, where people's
// keys sign, of what the requester's will.
func (s *Server) toSign(r *roster.Request, sc scene) error {
	if !r.Resolved.Signed {
		r.Digest = digest(*r)
		return nil
	}
	switch {
	case s.Pages == "":
		return errNoSignPages
	case sc.keys == nil:
		return errNoKeys
	}
	r.UID = sc.person.UID
	r.Digest = s.asked(*r).Digest()
	return nil
}

// keysHeld is the roster of people's keys that hosts hold, or do in a moment;
// nil, if there is none. It is read anew when it is another.
func (s *Server) keysHeld(ctx context.Context) (*grant.Roster, error) {
	b, err := s.Store.LastRoster(ctx)
	if err != nil || len(b) == 0 {
		return nil, err
	}
	s.keysMu.Lock()
	defer s.keysMu.Unlock()
	if !bytes.Equal(b, s.keysOf) {
		r, err := grant.OpenRoster(b, s.Fleet)
		if err != nil {
			return nil, err
		}
		s.keys, s.keysOf = &r, b
	}
	return s.keys, nil
}

// wouldCount asks what hosts would say to the grant, so that people learn it
// here, and not from a host that refuses. It is no more than courtesy. What
// waits for signatures is looked at when they are there.
func (s *Server) wouldCount(g *grant.Grant, v roster.Verdict, sc scene) error {
	if v.Role.Signed && g.Words == nil {
		return nil
	}
	if err := (grant.Reader{Roster: sc.keys}).CheckSigned(*g, sc.now); err != nil {
		return roster.Refuse(roster.Conflict, "hosts would refuse this grant: %v", err)
	}
	return nil
}

// unsigned reports whether the request waits for the requester's own key.
func unsigned(r roster.Request) bool { return r.Resolved.Signed && len(r.Word) == 0 }

func (s *Server) waitsToBeSigned(r roster.Request) string {
	return fmt.Sprintf("%s's own passkey to sign it, at %s", r.Person, s.pageOf(r))
}

// pageOf is where passkeys sign for the request.
func (s *Server) pageOf(r roster.Request) string {
	if s.Pages == "" {
		return ""
	}
	return s.Pages + "/requests/" + r.ID
}

// toBeSigned asks the caller's passkey to sign what the call says, if it is
// one of those that people's keys sign.
func (s *Server) toBeSigned(ctx context.Context, m proto.Message) (c roster.Ceremony, signs bool, err error) {
	switch m := m.(type) {
	case *api.SignRequest:
		r, err := s.mine(ctx, m)
		if err == nil {
			c, err = s.Desk.AskSignature(ctx, r.Person, r.Digest, r.Digest)
		}
		return c, true, err
	case *api.ApproveRequest:
		r, err := s.find(ctx, m.Id)
		if err != nil || !r.Resolved.Signed {
			return c, false, err
		}
		a := roster.Approval{Person: who(ctx).Name}
		if err := lessen(&a, r, m); err != nil {
			return c, true, err
		}
		y := grant.Yes{Ask: r.Digest, Person: a.Person, Hosts: a.Hosts, Length: a.Duration, At: s.now().UTC().Truncate(time.Second)}
		statement, _ := json.Marshal(y) // plain values always marshal
		c, err = s.Desk.AskSignature(ctx, a.Person, statement, y.Digest())
		return c, true, err
	}
	return c, false, nil
}

// mine is the caller's own request that waits for her signature.
func (s *Server) mine(ctx context.Context, m *api.SignRequest) (roster.Request, error) {
	r, err := s.find(ctx, m.Id)
	switch {
	case err != nil:
		return r, err
	case r.Person != who(ctx).Name:
		return r, roster.Refuse(roster.Denied, "only %s can sign this request", r.Person)
	case !r.Resolved.Signed:
		return r, roster.Refuse(roster.Conflict, "nobody has to sign for this role")
	case r.State != stateAsked:
		return r, decided(r)
	case !unsigned(r):
		return r, roster.Refuse(roster.Conflict, "you signed this request already")
	case !bytes.Equal(m.Digest, r.Digest):
		return r, errOtherSigned
	}
	return r, nil
}

// Sign implements the API.
func (s *Server) Sign(ctx context.Context, m *api.SignRequest) (*api.Request, error) {
	r, err := s.mine(ctx, m)
	if err != nil {
		return nil, err
	}
	statement, word, err := s.Desk.SignPasskey(ctx, who(ctx).Name, m.Assertion)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(statement, r.Digest) {
		return nil, errOtherSigned
	}
	now := s.now()
	r, err = s.Store.Change(ctx, r.ID, now, func(r roster.Request) (roster.Change, error) {
		if !unsigned(r) || r.State != stateAsked || !now.Before(r.LapsesAt) {
			return roster.Change{}, roster.Refuse(roster.Conflict, "this request does not wait for your signature any more")
		}
		return roster.Change{Word: word, Steps: []roster.Decision{{At: now, What: "mfa", Person: r.Person, Text: "signed the request with her own passkey"}}}, nil
	})
	if err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, "request signed", "request", r.ID, "person", r.Person)
	return s.message(ctx, r, s.Store.Proved(ctx, who(ctx).session.ID, now))
}

// yes is an approver's word, as her passkey signed it; none yet, while word is
// not there.
type yes struct {
	grant.Yes
	word []byte
}

// signedYes takes the approver's signature.
func (s *Server) signedYes(ctx context.Context, m *api.ApproveRequest) (yes, error) {
	if len(m.Assertion) == 0 {
		return yes{}, roster.Refuse(roster.Conflict, "people's own passkeys sign for this role: approve it on its page, %s/requests/%s", s.Pages, m.Id)
	}
	statement, word, err := s.Desk.SignPasskey(ctx, who(ctx).Name, m.Assertion)
	if err != nil {
		return yes{}, err
	}
	y := yes{word: word}
	if json.Unmarshal(statement, &y.Yes) != nil {
		return yes{}, errOtherSigned
	}
	return y, s.Store.Proved(ctx, who(ctx).session.ID, s.now())
}

// sign puts the word under the approval, if it is for that.
func (y yes) sign(a *roster.Approval, r roster.Request) error {
	if unsigned(r) {
		return roster.Refuse(roster.Conflict, "%s's own passkey has to sign this request first", r.Person)
	}
	if y.word == nil {
		return nil
	}
	if !bytes.Equal(y.Ask, r.Digest) || y.Person != a.Person || y.Length != a.Duration || !slices.Equal(y.Hosts, a.Hosts) {
		return errOtherSigned
	}
	a.At, a.Word = y.At.UTC(), y.word
	return nil
}

// words are what people's keys signed of the request and of the approvals that
// count.
func words(r roster.Request, approvals []roster.Approval) (*grant.Words, error) {
	w := &grant.Words{Hosts: r.Hosts, Length: r.Duration, Start: r.Start, Needed: uint64(r.Needed), Shown: digest(r)} //nolint:gosec // a handful
	var err error
	if w.Asked, err = grant.ParseAssertion(r.Word); err != nil {
		return nil, fmt.Errorf("signature of %s on %s: %w", r.Person, r.ID, err)
	}
	for _, a := range approvals {
		word, err := grant.ParseAssertion(a.Word)
		if err != nil {
			return nil, fmt.Errorf("signature of %s on %s: %w", a.Person, r.ID, err)
		}
		w.Approvals = append(w.Approvals, grant.Approved{Hosts: a.Hosts, Length: a.Duration, Word: word})
	}
	return w, nil
}
