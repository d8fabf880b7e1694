package api

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/request"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/wire/api"
)

const maxNote = 500

// Approve implements the API.
func (s *Server) Approve(ctx context.Context, m *api.ApproveRequest) (*api.Request, error) {
	if err := grant.CheckText("note", m.Note, maxNote); err != nil {
		return nil, invalid(err)
	}
	r, err := s.find(ctx, m.Id)
	if err != nil {
		return nil, err
	}
	sc, err := s.scene(ctx, r)
	if err != nil {
		return nil, err
	}
	var y yes
	approve := func(r roster.Request) (roster.Change, error) { return s.approve(r, who(ctx).Name, m, sc, y) }
	// Once without keeping it, so that a mistake costs no code.
	if _, err := approve(r); err != nil {
		return nil, err
	}
	if r.Resolved.Signed {
		y, err = s.signedYes(ctx, m)
	} else {
		err = s.spend(ctx, m)
	}
	if err != nil {
		return nil, err
	}
	var apart []string
	r, err = s.Store.Change(ctx, r.ID, sc.now, func(r roster.Request) (roster.Change, error) {
		c, err := approve(r)
		apart = c.Apart
		return c, err
	})
	if err != nil {
		return nil, conflict(err, apart)
	}
	s.Log.InfoContext(ctx, "request approved", "request", r.ID, "person", r.Person, "by", who(ctx).Name, "state", r.State)
	return s.message(ctx, r, nil)
}

// approve is what becomes of r when the person says yes to it. The policy is
// asked again: what it gave when the request was made counts only if it gives
// it still.
func (s *Server) approve(r roster.Request, by string, m *api.ApproveRequest, sc scene, y yes) (roster.Change, error) {
	no := roster.Change{}
	if err := decided(r); err != nil {
		return no, err
	}
	if !sc.now.Before(r.LapsesAt) {
		return no, decided(roster.Request{State: stateLapsed})
	}
	if r.Person == by {
		return no, roster.Refuse(roster.Denied, "you made this request: someone else has to approve it")
	}
	if slices.ContainsFunc(r.Approvals, func(a roster.Approval) bool { return a.Person == by }) {
		return no, roster.Refuse(roster.Conflict, "you approved this request already: it waits for somebody else")
	}
	v, err := s.Rules.Judge(sc.question(r), sc.hosts, sc.begin())
	if err != nil {
		return no, roster.Refuse(roster.Conflict, "the policy does not allow this request any more: %v", err)
	}
	w := s.waiting(r, v, sc)
	inPlaceOf, err := turn(policy.Stand(v.Steps, w, sc.now), v, by, r)
	if err != nil {
		return no, err
	}
	if !sameRole(v.Role, r.Resolved) || r.Proof != nil && !fresh(v, r.AskedAt.Sub(r.Proof.At)) {
		return no, roster.Refuse(roster.Conflict, "role %s has changed since this was asked: it has to be asked again", r.Role)
	}
	if !bytes.Equal(m.Digest, r.Digest) {
		return no, roster.Refuse(roster.Conflict, "this is not the request as you were shown it: look at it again, then decide")
	}
	if m.InPlaceOf != inPlaceOf {
		return no, roster.Refuse(roster.Conflict, "you would approve this %s, which is not what you were shown: look at it again, then decide", cmp.Or(place(inPlaceOf), "in your own right"))
	}
	a := roster.Approval{Person: by, InPlaceOf: inPlaceOf, Factor: factor(m), At: sc.now, Note: m.Note}
	if err := lessen(&a, r, m); err != nil {
		return no, err
	}
	give := r
	if r.Resolved.Signed {
		if err := y.sign(&a, r); err != nil {
			return no, err
		}
		if y.word == nil {
			give = bare(r)
		}
	}
	// An earlier approval counts only while its giver could still give it.
	w.Given = append(slices.Clone(r.Approvals), a)
	give.Approvals = w.Given
	c := roster.Change{}
	if st := policy.Stand(v.Steps, w, sc.now); st.Done {
		if c, err = s.issue(give, v, sc, st.Counted); err != nil {
			return no, err
		}
	}
	c.Approval, c.Apart = &a, v.Apart
	c.Steps = append([]roster.Decision{
		{At: sc.now, What: "mfa", Person: by, Text: "proved herself with " + a.Factor},
		{At: sc.now, What: "approved", Person: by, Text: joined(place(a.InPlaceOf), duty(v.OnCall[a.Whose()]), m.Note, lessText(a))},
	}, c.Steps...)
	return c, nil
}

// duty says for the record that the one whose word it is was on call.
func duty(onCall string) string {
	if onCall == "" {
		return ""
	}
	return "(" + onCall + ")"
}

// joined are those of the texts that say something.
func joined(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), " ")
}

// lessen takes up what the approver says yes to, if that is less than what was
// asked for.
func lessen(a *roster.Approval, r roster.Request, m *api.ApproveRequest) error {
	if m.Duration != nil {
		d, err := duration(m.Duration)
		if err != nil {
			return err
		}
		if d > r.Duration {
			return roster.Refuse(roster.Invalid, "%v is more than the %v that was asked for: approve that, or less", d, r.Duration)
		}
		if d < r.Duration {
			a.Duration = d
		}
	}
	for _, h := range m.Hosts {
		if !slices.Contains(r.Hosts, h) {
			return roster.Refuse(roster.Invalid, "%.64q was not asked for: approve some of %s", h, strings.Join(r.Hosts, ", "))
		}
	}
	if len(m.Hosts) > 0 && !slices.Equal(slices.Compact(slices.Sorted(slices.Values(m.Hosts))), r.Hosts) {
		a.Hosts = slices.Compact(slices.Sorted(slices.Values(m.Hosts)))
	}
	if hosts, _ := request.Least(r.Asked, append(slices.Clone(r.Approvals), *a)); len(hosts) == 0 {
		return roster.Refuse(roster.Conflict, "others approved this for other hosts, so that none would be left: approve one of theirs, or deny it")
	}
	return nil
}

func lessText(a roster.Approval) string {
	var less []string
	if a.Duration > 0 {
		less = append(less, "for "+a.Duration.String())
	}
	if len(a.Hosts) > 0 {
		less = append(less, "on "+strings.Join(a.Hosts, ", "))
	}
	if len(less) == 0 {
		return ""
	}
	return "(only " + strings.Join(less, " ") + ")"
}

// waiting is a request as its approval sees it.
func (s *Server) waiting(r roster.Request, v roster.Verdict, sc scene) policy.Waiting {
	return policy.Waiting{Asked: r.AskedAt, Given: r.Approvals, StandIns: s.standIns(r, sc), Least: max(v.Needed, r.Needed)}
}

// turn refuses whoever may not approve, or not yet, and says in whose place the
// others do.
func turn(st policy.Standing, v roster.Verdict, by string, r roster.Request) (inPlaceOf string, err error) {
	inPlaceOf, may := st.May(by)
	switch {
	case may:
		return inPlaceOf, nil
	case slices.ContainsFunc(v.Steps, func(s roster.Step) bool { return slices.Contains(slices.Concat(s.By, s.Later), by) }):
		return "", roster.Refuse(roster.Conflict, "it is not your turn: this request waits for %s", st)
	case slices.Contains(v.Spared, by):
		return "", roster.Refuse(roster.Conflict, "your word is not asked for here: nothing that role %s has you asked for is so with this request, which waits for %s", r.Role, st)
	}
	return "", roster.Refuse(roster.Denied, "you are not among the approvers of role %s", r.Role)
}

// A right is what lets the caller say no to a request, or end its grant.
type right struct {
	may       bool   // as one who approves
	inPlaceOf string // who is away
}

// Deny implements the API.
func (s *Server) Deny(ctx context.Context, m *api.DenyRequest) (*api.Request, error) {
	return s.decide(ctx, m.Id, m.Note, func(r roster.Request, _ time.Time, has right) (string, error) {
		if err := decided(r); err != nil {
			return "", err
		}
		if !who(ctx).Admin && !has.may {
			return "", roster.Refuse(roster.Denied, "you are not among the approvers of role %s; your own request is taken back with `curfew withdraw`", r.Role)
		}
		return stateDenied, nil
	})
}

// Withdraw implements the API.
func (s *Server) Withdraw(ctx context.Context, m *api.WithdrawRequest) (*api.Request, error) {
	return s.decide(ctx, m.Id, "", func(r roster.Request, _ time.Time, _ right) (string, error) {
		if r.Person != who(ctx).Name {
			return "", roster.Refuse(roster.Denied, "only %s can withdraw this request: `curfew deny` refuses it", r.Person)
		}
		return stateWithdrawn, decided(r)
	})
}

// Revoke implements the API. With the grant ends what goes on from it.
func (s *Server) Revoke(ctx context.Context, m *api.RevokeRequest) (*api.Request, error) {
	return s.decide(ctx, m.Grant, m.Note, func(r roster.Request, now time.Time, has right) (string, error) {
		return revocable(r, who(ctx), now, has)
	})
}

// revocable says what becomes of a grant that somebody revokes.
func revocable(r roster.Request, c caller, now time.Time, has right) (string, error) {
	approved := slices.ContainsFunc(r.Approvals, func(a roster.Approval) bool { return a.Person == c.Name || a.InPlaceOf == c.Name })
	if !c.Admin && c.Name != r.Person && !approved && !has.may {
		return "", roster.Refuse(roster.Denied, "its person, its approvers and admins can revoke this grant")
	}
	if r.State == stateAsked {
		return "", roster.Refuse(roster.Conflict, "this request was not approved yet: deny it, or withdraw it")
	}
	if r.State != stateIssued || !now.Before(r.Grant.Drained()) {
		return "", roster.Refuse(roster.Conflict, "this grant is over")
	}
	return stateRevoked, nil
}

// decide changes the request to the state that next says.
func (s *Server) decide(ctx context.Context, id, note string, next func(roster.Request, time.Time, right) (string, error)) (*api.Request, error) {
	if err := grant.CheckText("note", note, maxNote); err != nil {
		return nil, invalid(err)
	}
	r, err := s.find(ctx, id)
	if err != nil {
		return nil, err
	}
	has, err := s.mayDecide(ctx, r)
	if err != nil {
		return nil, err
	}
	now, by, text := s.now(), who(ctx).Name, note
	if has.inPlaceOf != "" && !who(ctx).Admin {
		text = joined(place(has.inPlaceOf), note)
	}
	r, err = s.Store.Change(ctx, r.ID, now, func(r roster.Request) (roster.Change, error) {
		state, err := next(r, now, has)
		if err != nil {
			return roster.Change{}, err
		}
		return roster.Change{State: state, By: by, Note: note, Steps: []roster.Decision{{At: now, What: state, Person: by, Text: text}}}, nil
	})
	if err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, "request decided", "request", r.ID, "person", r.Person, "by", by, "state", r.State)
	return s.message(ctx, r, nil)
}
