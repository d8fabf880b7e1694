package api

import (
	"cmp"
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/request"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
)

// lookAgain is how often a watcher looks without having been woken: another
// server on the same database wakes nobody here.
const lookAgain = time.Second

const maxRequests = 500

// find returns a request that the caller may see. To everybody else there is
// none.
func (s *Server) find(ctx context.Context, id string) (roster.Request, error) {
	r, err := s.Store.Request(ctx, id)
	if is(err, roster.ErrUnknown) {
		return r, errNoRequest
	}
	if err != nil {
		return r, err
	}
	sc, err := s.look(ctx, s.now())
	if err != nil {
		return roster.Request{}, err
	}
	if !s.visible(r, who(ctx).Person, sc) {
		return roster.Request{}, errNoRequest
	}
	return r, nil
}

func (s *Server) visible(r roster.Request, p roster.Person, sc scene) bool {
	return p.Admin || r.Person == p.Name || r.DecidedBy == p.Name ||
		slices.ContainsFunc(r.Approvals, func(a roster.Approval) bool { return a.Person == p.Name || a.InPlaceOf == p.Name }) ||
		s.Rules.MayApprove(p.Name, r.Person, r.Role) || standsFor(p.Name, s.standIns(r, sc)) != ""
}

// GetRequest implements the API.
func (s *Server) GetRequest(ctx context.Context, m *api.GetRequestRequest) (*api.Request, error) {
	r, err := s.find(ctx, m.Id)
	if err != nil {
		return nil, err
	}
	reply, err := s.withRemarks(ctx, r)
	if err != nil {
		return nil, err
	}
	return reply, s.tellGaps(ctx, r, reply)
}

// ListRequests implements the API.
func (s *Server) ListRequests(ctx context.Context, m *api.ListRequestsRequest) (*api.ListRequestsReply, error) {
	all, err := s.candidates(ctx, m)
	if err != nil {
		return nil, err
	}
	sc, err := s.look(ctx, s.now())
	if err != nil {
		return nil, err
	}
	if sc.hosts, err = s.liveHosts(ctx); err != nil {
		return nil, err
	}
	limit := maxRequests
	if m.Limit > 0 && m.Limit < maxRequests {
		limit = int(m.Limit)
	}
	reply, p := &api.ListRequestsReply{}, who(ctx).Person
	for _, r := range all {
		if len(reply.Requests) == limit {
			break
		}
		if m.ForApproval && !s.waitsFor(r, p.Name, sc) || !s.visible(r, p, sc) {
			continue
		}
		v, err := s.message(ctx, r, nil)
		if err != nil {
			return nil, err
		}
		reply.Requests = append(reply.Requests, v)
	}
	return reply, nil
}

// candidates are the requests among which the caller looks for hers, the newest
// first: of those whose life is not over all, so that what others have hides
// none; of the rest the newest of the fleet.
func (s *Server) candidates(ctx context.Context, m *api.ListRequestsRequest) ([]roster.Request, error) {
	if m.ForApproval {
		all, err := s.Store.Asked(ctx)
		slices.Reverse(all)
		return all, err
	}
	most := maxOpen
	if m.All {
		most = maxRequests
	}
	return s.Store.Requests(ctx, m.All, most)
}

// waitsFor reports whether the request waits for this person's word.
func (s *Server) waitsFor(r roster.Request, name string, sc scene) bool {
	if r.State != stateAsked || unsigned(r) || !sc.now.Before(r.LapsesAt) || r.Person == name {
		return false
	}
	if len(sc.lent) == 0 && !s.Rules.MayApprove(name, r.Person, r.Role) {
		return false // as most are: without a judgement
	}
	st, ok := s.standing(r, sc)
	return ok && slices.Contains(st.Who(), name)
}

// Awaited says whose word each of the requests waits for now: of those of the step
// that is open, and apart from them of those whom its escalation added.
func (s *Server) Awaited(ctx context.Context, all []roster.Request) (map[string][][]string, error) {
	sc, err := s.look(ctx, s.now())
	if err == nil {
		sc.hosts, err = s.liveHosts(ctx)
	}
	if err != nil {
		return nil, err
	}
	waited := map[string][][]string{}
	for _, r := range all {
		if r.State != stateAsked || unsigned(r) || !sc.now.Before(r.LapsesAt) {
			continue
		}
		if st, ok := s.standing(r, sc); ok {
			first, added := st.Circles()
			waited[r.ID] = [][]string{first, added}
		}
	}
	return waited, nil
}

// WatchRequest implements the API.
func (s *Server) WatchRequest(ctx context.Context, m *api.GetRequestRequest, stream *connect.ServerStream[api.Request]) error {
	var last *api.Request
	return s.Follow(ctx, func() (bool, error) {
		now, err := s.GetRequest(ctx, m)
		if err != nil {
			return true, err
		}
		if last == nil || !proto.Equal(last, now) {
			if err := stream.Send(now); err != nil {
				return true, err
			}
		}
		last = now
		return request.Over(request.State(now.State)), nil
	})
}

// Follow looks, and looks again whenever something has changed, until there is
// nothing more to see or the caller's session is over.
func (s *Server) Follow(ctx context.Context, look func() (over bool, err error)) error {
	leave, err := s.watchers.enter(who(ctx).Name)
	if err != nil {
		return err
	}
	defer leave()
	for {
		changed := s.Store.Changed() // before the look, so that nothing falls in between
		if over, err := look(); over || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.Stop:
			return errStopping
		case <-changed:
		case <-s.Clock.After(lookAgain):
		}
		if err := s.stillSignedIn(ctx); err != nil {
			return err
		}
	}
}

// stillSignedIn ends a stream with its session.
func (s *Server) stillSignedIn(ctx context.Context) error {
	_, _, err := s.Desk.Session(ctx, who(ctx).session.ID)
	return err
}

// auditWords are a role's demands on the record as messages have them.
var auditWords = map[grant.Audit]string{grant.AuditAlert: "alert", grant.AuditEnd: "end"}

// message is the request as it is sent.
func (s *Server) message(ctx context.Context, r roster.Request, err error) (*api.Request, error) {
	if err != nil {
		return nil, err
	}
	m := &api.Request{
		Id: r.ID, Person: r.Person, FullName: r.FullName, Role: r.Role, Hosts: r.Hosts, Duration: durationpb.New(r.Duration),
		Reason: r.Reason, Ticket: r.Ticket, State: r.State, AskedAt: timestamppb.New(r.AskedAt), LapsesAt: timestamppb.New(r.LapsesAt),
		Digest: r.Digest, ApprovalsNeeded: uint32(r.Needed), DecidedBy: r.DecidedBy, DecisionNote: r.DecisionNote, //nolint:gosec // a handful
		Commands: commands(r.Resolved), RunAs: r.Resolved.RunAs, Extends: r.Extends, Unguarded: r.Resolved.Unguarded, NoExec: r.Resolved.NoExec,
		Audit:     auditWords[r.Resolved.Audit],
		Terminals: recorded(r.Resolved),
		Source:    r.Source,
		Proof:     proofMessage(r.Proof),
	}
	for _, d := range r.Resolved.Network {
		m.Network = append(m.Network, d.String())
	}
	if r.Resolved.Signed {
		m.HumanSignatures, m.Signed, m.Page = true, !unsigned(r), s.pageOf(r)
	}
	if o := r.Origin; o != nil {
		m.Origin = &api.Origin{Host: o.Host, Session: o.Session, Command: o.Command, Directory: o.Directory}
	}
	if !r.Start.IsZero() {
		m.Start = timestamppb.New(r.Start)
	}
	if r.Resolved.Drain > 0 {
		m.Drain = durationpb.New(r.Resolved.Drain)
	}
	for _, d := range r.Doubts {
		m.Doubts = append(m.Doubts, &api.Doubt{If: d.If, Because: d.Because})
	}
	m.Risk = riskMessage(r.Risk)
	for _, a := range r.Approvals {
		one := &api.Approval{Person: a.Person, InPlaceOf: a.InPlaceOf, Factor: a.Factor, At: timestamppb.New(a.At), Note: a.Note, Hosts: a.Hosts}
		if a.Duration > 0 {
			one.Duration = durationpb.New(a.Duration)
		}
		m.Approvals = append(m.Approvals, one)
	}
	if r.State == stateAsked {
		if err := s.tellWaiting(ctx, r, m); err != nil {
			return nil, err
		}
	}
	if r.Grant == nil {
		return m, nil
	}
	m.Grant, m.NotBefore, m.NotAfter = r.Grant.ID, timestamppb.New(r.Grant.NotBefore), timestamppb.New(r.Grant.NotAfter)
	if !r.EndedAt.IsZero() {
		m.EndedAt = timestamppb.New(r.EndedAt)
	}
	m.HostStates, err = s.hostStates(ctx, r)
	return m, err
}

// tellWaiting tells of a request for whose word it waits.
func (s *Server) tellWaiting(ctx context.Context, r roster.Request, m *api.Request) error {
	sc, err := s.look(ctx, s.now())
	if err != nil {
		return err
	}
	if sc.hosts, err = s.liveHosts(ctx); err != nil {
		return err
	}
	st, ok := s.standing(r, sc)
	switch {
	case !ok: // nobody can decide on it; but for want of somebody on call, that may be for a while
		m.WaitsFor = st.Nobody
	case unsigned(r):
		m.WaitsFor = s.waitsToBeSigned(r)
	default:
		m.Approvers, m.WaitsFor = st.Who(), st.String()
		m.InPlaceOf, _ = st.May(who(ctx).Name)
	}
	return nil
}

// standing is how far the approval of a request has come, if the policy still
// allows it.
func (s *Server) standing(r roster.Request, sc scene) (policy.Standing, bool) {
	sc.start = r.Start
	v, err := s.Rules.Judge(sc.question(r), sc.hosts, sc.begin())
	if err != nil {
		return policy.Standing{Nobody: v.Nobody}, false
	}
	st := policy.Stand(v.Steps, s.waiting(r, v, sc), sc.now)
	st.Nobody = v.Nobody
	return st, true
}

// hostStates is what each host last said of the grant.
func (s *Server) hostStates(ctx context.Context, r roster.Request) ([]*api.HostState, error) {
	sent, err := s.Store.SentTo(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	by := map[string]*api.HostState{}
	var all []*api.HostState
	for _, h := range r.Grant.Hosts {
		m := &api.HostState{Host: h, State: "offline"}
		if s.Connected(h) {
			m.State = "sent"
		}
		by[h] = m
		all = append(all, m)
	}
	for _, d := range sent {
		by[d.Host].State, by[d.Host].At = "sent", timestamppb.New(d.At)
	}
	var said []roster.Event
	for _, kind := range []ledger.Kind{ledger.Installed, ledger.Removed, ledger.Leftovers} {
		events, err := s.Store.Events(ctx, roster.Search{Grant: r.Grant.ID, Kind: kind.String(), Limit: maxEvents})
		if err != nil {
			return nil, err
		}
		said = append(said, events...)
	}
	slices.SortFunc(said, func(x, y roster.Event) int { return cmp.Compare(x.ID, y.ID) })
	for _, e := range said {
		if m := by[e.Host]; m != nil {
			setHostState(m, e)
		}
	}
	if r.EndedAt.IsZero() {
		return all, nil
	}
	passed, err := s.Store.PassedBy(ctx, r.ID)
	never := map[string]bool{}
	for _, h := range passed {
		never[h] = true
	}
	for _, m := range all {
		switch {
		case m.State == "removed":
		case m.State != "installed" && m.State != "unconfirmed" && never[m.Host]:
			m.State = "never-installed"
		default:
			m.State, m.At = "unconfirmed", timestamppb.New(r.EndedAt)
		}
	}
	return all, err
}

func setHostState(m *api.HostState, e roster.Event) {
	if e.Entry.Kind == ledger.Installed {
		m.State, m.At, m.Left = "installed", timestamppb.New(e.Entry.At), nil
		return
	}
	if e.Entry.Kind == ledger.Leftovers {
		if r := leftoversMessage(e); r.SignatureValid {
			m.Leftovers = r.Left
		}
		return
	}
	// Only what the host has signed says that the grant is gone, and only if
	// nothing is left.
	receipt, ok := openReceipt(e)
	if !ok {
		return
	}
	m.State, m.At, m.Left = "removed", timestamppb.New(receipt.DoneAt), receipt.Left
	if !receipt.Clean() {
		m.State, m.At = "unconfirmed", timestamppb.New(receipt.EndedAt)
	}
}

// riskMessage is what was out of the ordinary as it is sent.
func riskMessage(r roster.Risk) *api.Risk {
	m := &api.Risk{NewNetwork: r.NewNetwork, FirstTime: r.FirstTime}
	if r.FactorRefused != nil {
		m.FactorRefused = proto.Uint32(uint32(*r.FactorRefused)) //nolint:gosec // a count
	}
	if r.FactorAge != nil {
		m.FactorAge = durationpb.New(*r.FactorAge)
	}
	return m
}
