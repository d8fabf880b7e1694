package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/wire/api"
)

const maxKey = 100

// ListRoles implements the API.
func (s *Server) ListRoles(ctx context.Context, _ *api.ListRolesRequest) (*api.ListRolesReply, error) {
	hosts, err := s.liveHosts(ctx)
	if err != nil {
		return nil, err
	}
	reply := &api.ListRolesReply{}
	name, now := who(ctx).Name, s.now()
	for _, o := range slices.Concat(s.Rules.Offers(name, hosts, now), s.Rules.Ahead(name, hosts, now)) {
		m := &api.Role{
			Name: o.Role.Name, Description: o.Description, Hosts: o.Hosts, Selector: o.Selector,
			MaxDuration: durationpb.New(o.MaxDuration), ReasonRequired: o.ReasonRequired, TicketRequired: o.TicketRequired,
			Commands: commands(o.Role), RunAs: o.Role.RunAs, Approvers: o.Approvers, Terminals: recorded(o.Role),
			Conditions: o.When, Doubtful: o.Doubtful,
			ApprovalsNeeded: uint32(o.Needed), //nolint:gosec // a handful
		}
		if o.Fresh > 0 {
			m.Freshness = durationpb.New(o.Fresh)
		}
		if !o.Until.IsZero() {
			m.EligibleUntil = timestamppb.New(o.Until)
		}
		if !o.From.IsZero() {
			m.EligibleFrom = timestamppb.New(o.From)
		}
		reply.Roles = append(reply.Roles, m)
	}
	return reply, nil
}

// CreateRequest implements the API.
func (s *Server) CreateRequest(ctx context.Context, m *api.CreateRequestRequest) (*api.Request, error) {
	d, err := duration(m.Duration)
	if err != nil {
		return nil, err
	}
	hosts, err := s.wanted(ctx, m)
	if err != nil {
		return nil, err
	}
	a := roster.Asked{Role: m.Role, Hosts: hosts, Duration: d, Reason: m.Reason, Ticket: m.Ticket}
	if m.Start != nil {
		a.Start = m.Start.AsTime().UTC().Truncate(time.Second)
	}
	return s.askFor(ctx, m, roster.Request{Asked: a, Key: m.Key})
}

// wanted are the hosts that are asked for, sorted. Labels name those that have
// them now: who approves is shown the hosts, and one that comes later is not
// among them.
func (s *Server) wanted(ctx context.Context, m *api.CreateRequestRequest) ([]string, error) {
	if len(m.Labels) == 0 {
		return slices.Compact(slices.Sorted(slices.Values(m.Hosts))), nil
	}
	if len(m.Hosts) > 0 {
		return nil, roster.Refuse(roster.Invalid, "name the hosts or their labels, not both")
	}
	if err := roster.CheckLabels(m.Labels); err != nil {
		return nil, err
	}
	all, err := s.liveHosts(ctx)
	if err != nil {
		return nil, err
	}
	at := s.now()
	if m.Start.AsTime().After(at) {
		at = m.Start.AsTime()
	}
	var covered []string // no more than the role: nobody learns of other hosts by asking
	for _, o := range s.Rules.Offers(who(ctx).Name, all, at) {
		if o.Role.Name == m.Role {
			covered = o.Hosts
		}
	}
	var names []string
	for _, h := range all {
		if _, is := slices.BinarySearch(covered, h.Name); is && has(h.Labels, m.Labels) {
			names = append(names, h.Name)
		}
	}
	if len(names) == 0 {
		return nil, roster.Refuse(roster.Invalid, "no host of role %.64q that you may ask for has these labels: see `curfew roles`", m.Role)
	}
	slices.Sort(names)
	return names, nil
}

// has reports whether a host has all the labels.
func has(labels, wanted map[string]string) bool {
	for k, v := range wanted {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// askFor makes the caller's request. Her proof is looked at last, so that a
// mistake in the rest costs none. Without one, the request stands on an earlier
// proof, where its role lets it.
func (s *Server) askFor(ctx context.Context, m proving, r roster.Request) (*api.Request, error) {
	r.Person, r.FullName, r.Factor, r.Source = who(ctx).Name, who(ctx).FullName, factor(m), source(ctx)
	var prove func(context.Context) error
	if brings(m) {
		prove = func(ctx context.Context) error { return s.spend(ctx, m) }
	}
	r, err := s.ask(ctx, r, prove)
	return s.message(ctx, r, err)
}

// Extend implements the API.
func (s *Server) Extend(ctx context.Context, m *api.ExtendRequest) (*api.Request, error) {
	d, err := duration(m.Duration)
	if err != nil {
		return nil, err
	}
	old, err := s.find(ctx, m.Grant)
	if err != nil {
		return nil, err
	}
	if old.Person != who(ctx).Name {
		return nil, roster.Refuse(roster.Denied, "only %s can ask for more time for this grant", old.Person)
	}
	if old.State != stateIssued || !s.now().Before(old.Grant.NotAfter) {
		return nil, roster.Refuse(roster.Conflict, "this grant does not stand any more: make a new request")
	}
	if old.Resolved.Signed {
		return nil, roster.Refuse(roster.Conflict, "people's own keys sign for grants of role %s, up to their end: make a new request", old.Role)
	}
	reason := m.Reason
	if reason == "" {
		reason = old.Reason
	}
	return s.askFor(ctx, m, roster.Request{Asked: roster.Asked{
		Role: old.Role, Hosts: old.Grant.Hosts, Duration: d, Reason: reason, Ticket: old.Ticket, Extends: old.Grant.ID,
	}, Key: m.Key})
}

func duration(d *durationpb.Duration) (time.Duration, error) {
	if d == nil || d.CheckValid() != nil || d.AsDuration() <= 0 || d.AsDuration() > grant.MaxDuration || d.AsDuration()%time.Second != 0 {
		return 0, roster.Refuse(roster.Invalid, "for how long: whole seconds, more than none and up to %v", grant.MaxDuration)
	}
	return d.AsDuration(), nil
}

// maxAhead is how far ahead a grant may be asked for.
const maxAhead = 30 * 24 * time.Hour

func checkStart(start, now time.Time) error {
	switch {
	case start.IsZero():
		return nil
	case !start.After(now):
		return roster.Refuse(roster.Invalid, "it cannot begin at %s, which is past: leave that out, and it begins when it is approved", start.UTC().Format(time.RFC3339))
	case start.Sub(now) > maxAhead:
		return roster.Refuse(roster.Invalid, "it cannot begin more than %d days from now", int(maxAhead.Hours()/24))
	}
	return nil
}

func checkAsked(r roster.Request) error {
	if len(r.Hosts) == 0 {
		return roster.Refuse(roster.Invalid, "on which hosts: name at least one (--on)")
	}
	errs := []error{grant.CheckRole(r.Role), grant.CheckText("reason", r.Reason, 500), grant.CheckText("ticket", r.Ticket, 100), grant.CheckText("key", r.Key, maxKey)}
	for _, h := range r.Hosts {
		errs = append(errs, grant.CheckHost(h))
	}
	for _, err := range errs {
		if err != nil {
			return invalid(err)
		}
	}
	return nil
}

// ask judges the request of the person that it names, has her prove herself,
// and keeps it. With nothing to prove herself by, it has to stand on an earlier
// proof of the caller's.
func (s *Server) ask(ctx context.Context, r roster.Request, prove func(context.Context) error) (roster.Request, error) {
	no := roster.Request{}
	r.State = stateAsked
	if err := checkAsked(r); err != nil {
		return no, err
	}
	if r.Key != "" {
		was, err := s.Store.RequestOf(ctx, r.Person, r.Key)
		if err == nil && !was.SameAs(r.Asked) {
			return no, errKey
		}
		if err == nil || !is(err, roster.ErrUnknown) {
			return was, err
		}
	}
	sc, err := s.scene(ctx, r)
	if err != nil {
		return no, err
	}
	if err := checkStart(r.Start, sc.now); err != nil {
		return no, err
	}
	v, err := s.judge(ctx, &r, sc)
	if err == nil && prove == nil {
		err = s.earlier(ctx, &r, v)
	}
	if err == nil {
		err = s.toSign(&r, sc)
	}
	if err != nil {
		return no, err
	}
	c := roster.Change{}
	// Even a request that has to wait has to make a grant that could stand.
	issued, err := s.issue(bare(r), v, sc, nil)
	if err != nil {
		return no, err
	}
	if v.Needed == 0 && !v.Role.Signed {
		c = issued
	}
	c.Apart = v.Apart
	if c.Grant == nil {
		c.Steps = askedInPlace(policy.Stand(v.Steps, s.waiting(r, v, sc), sc.now).StandIns, sc.now)
	}
	c.Steps = slices.Concat(firstSteps(r), doubts(v.Steps, sc.now), c.Steps)
	if r, err = s.keep(ctx, r, c, prove); err != nil {
		return no, err
	}
	s.Log.InfoContext(ctx, "request made", "request", r.ID, "person", r.Person, "role", r.Role, "state", r.State)
	return r, nil
}

// judge has the policy judge a new request, and gives it what comes of that.
func (s *Server) judge(ctx context.Context, r *roster.Request, sc scene) (v roster.Verdict, err error) {
	if r.Risk, err = s.Store.Risk(ctx, r.Person, r.Role, r.Source, sc.now); err != nil {
		return v, err
	}
	if v, err = s.Rules.Judge(sc.question(*r), sc.hosts, sc.begin()); err != nil {
		return v, err
	}
	r.ID, r.AskedAt, r.LapsesAt = newID("r"), sc.now, sc.now.Add(v.Waits)
	r.Resolved, r.Lease, r.Needed, r.Policy = v.Role, v.Lease, v.Needed, v.Version
	r.Doubts = v.Doubts
	return v, nil
}

// keep has the person of a request that was judged prove herself, if it stands on
// nothing earlier, and keeps it with what becomes of it at once.
func (s *Server) keep(ctx context.Context, r roster.Request, c roster.Change, prove func(context.Context) error) (roster.Request, error) {
	if prove != nil {
		if err := prove(ctx); err != nil {
			return r, err
		}
	}
	r, err := s.Store.Ask(ctx, r, r.AskedAt, c)
	switch {
	case is(err, roster.ErrExists):
		return r, errKey
	case is(err, roster.ErrUsed):
		return r, errProve // what it was to stand on counts no more
	case err != nil:
		return r, conflict(err, c.Apart)
	}
	return r, nil
}

// firstSteps are those with which the life of each request begins.
func firstSteps(r roster.Request) []roster.Decision {
	return []roster.Decision{
		{At: r.AskedAt, What: stateAsked, Person: r.Person, Text: fmt.Sprintf("%s on %s for %v%s: %s", r.Role, strings.Join(r.Hosts, ", "), r.Duration, startText(r.Start), r.Reason)},
		{At: r.AskedAt, What: "mfa", Person: r.Person, Text: provenText(r)},
	}
}

// doubts tell of each step that is not always asked why it is.
func doubts(steps []roster.Step, now time.Time) []roster.Decision {
	var all []roster.Decision
	for i, step := range steps {
		if step.Because != "" {
			all = append(all, roster.Decision{
				At: now, What: roster.DoubtStep,
				Text: fmt.Sprintf("step %d of %d, by %d of %s, is asked because %s", i+1, len(steps), step.Count, roster.Some(step.By, ", "), step.Because),
			})
		}
	}
	return all
}

// startText says when it is to begin, if that is not at once.
func startText(start time.Time) string {
	if start.IsZero() {
		return ""
	}
	return " from " + start.UTC().Format(time.RFC3339)
}

var errKey = roster.Refuse(roster.Taken, "this key was used for another request: choose a new one")

// conflict is the refusal for what changed between the judgement and the
// keeping.
func conflict(err error, apart []string) error {
	switch {
	case is(err, roster.ErrApart):
		return roster.Refuse(roster.Conflict, "the policy keeps this role apart from %s, and a grant of it stands: it has to end first", strings.Join(apart, ", "))
	case is(err, roster.ErrDisabled):
		return roster.Refuse(roster.Denied, "that person's account is disabled")
	case is(err, roster.ErrNotAway):
		return roster.Refuse(roster.Conflict, "a delegation that an approval of this stands on was taken back, or is over: look at the request again")
	case is(err, roster.ErrRevoked):
		return roster.Refuse(roster.Conflict, "the grant that this goes on from was revoked: it takes a new request")
	case is(err, roster.ErrDecommissioned):
		return roster.Refuse(roster.Conflict, "one of the hosts has left the fleet: ask again without it")
	}
	return err
}
