package web

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// roleView is a role that the visitor may ask for, and what she asked of it
// last.
type roleView struct {
	*api.Role
	Last   *api.Request
	Proven string // how long ago she proved herself, see proven
}

// proven is how long ago the visitor proved herself, if a request for the role
// may stand on that; empty, if it takes a proof of its own. The API decides again.
func proven(o *api.Role, p *api.Proof, now time.Time) string {
	if o.Freshness == nil || p == nil {
		return ""
	}
	ago := now.Sub(p.At.AsTime())
	if ago < 0 || ago >= o.Freshness.AsDuration() {
		return ""
	}
	return lately(ago)
}

// homeView is the first page: what stands, what waits, what may be asked for.
type homeView struct {
	Live    []grantRow
	Asked   []*api.Request
	Waiting []*api.Request
	Roles   []roleView
}

func (s *Server) home(ctx context.Context, _ *http.Request) (page, error) {
	me, err := s.API.Whoami(ctx, &api.WhoamiRequest{})
	if err != nil {
		return page{}, err
	}
	roles, err := s.API.ListRoles(ctx, &api.ListRolesRequest{})
	if err != nil {
		return page{}, err
	}
	all, err := s.API.ListRequests(ctx, &api.ListRequestsRequest{All: true})
	if err != nil {
		return page{}, err
	}
	waiting, err := s.API.ListRequests(ctx, &api.ListRequestsRequest{ForApproval: true})
	if err != nil {
		return page{}, err
	}
	open, err := s.API.ListRequests(ctx, &api.ListRequestsRequest{}) // of all only the newest are told
	if err != nil {
		return page{}, err
	}
	v, now := homeView{Waiting: waiting.Requests}, s.Clock.Now().Wall
	others := func(q *api.Request) bool { return q.Person != me.Person.Name }
	own := slices.DeleteFunc(all.Requests, others)
	for _, q := range slices.DeleteFunc(open.Requests, others) {
		switch q.State {
		case "asked":
			v.Asked = append(v.Asked, q)
		case "issued":
			v.Live = append(v.Live, rowOf(q, now))
		}
	}
	for _, o := range roles.Roles {
		v.Roles = append(v.Roles, roleView{o, lastOf(o, own), proven(o, me.Proof, now)})
	}
	return page{Name: "home", Title: "My roles", Data: v}, nil
}

// lastOf is the visitor's newest request of the role that could be made again
// as it was.
func lastOf(o *api.Role, own []*api.Request) *api.Request {
	for _, q := range own { // the newest is the first
		if o.EligibleFrom == nil && q.Role == o.Name && q.Extends == "" && q.Duration.AsDuration() <= o.MaxDuration.AsDuration() &&
			!slices.ContainsFunc(q.Hosts, func(h string) bool { return !slices.Contains(o.Hosts, h) }) {
			return q
		}
	}
	return nil
}

// atForm is how a browser writes a time that is picked.
const atForm = "2006-01-02T15:04"

// askView is the form of a request.
type askView struct {
	*api.Role
	Allows    allowed
	On        []string
	For       time.Duration
	Durations []time.Duration
	Reason    string
	Ticket    string
	At        string // when it begins; empty: at once
	Labels    string // in place of the hosts
	Proven    string // how long ago she proved herself, see proven
}

func (s *Server) askForm(ctx context.Context, r *http.Request) (page, error) {
	me, err := s.API.Whoami(ctx, &api.WhoamiRequest{})
	if err != nil {
		return page{}, err
	}
	roles, err := s.API.ListRoles(ctx, &api.ListRolesRequest{})
	if err != nil {
		return page{}, err
	}
	name := r.PathValue("role")
	i := slices.IndexFunc(roles.Roles, func(o *api.Role) bool { return o.Name == name })
	if i < 0 {
		return page{}, roster.Refuse(roster.Denied, "you may not ask for such a role: the first page lists those that you may")
	}
	o := roles.Roles[i]
	v := askView{Role: o, Proven: proven(o, me.Proof, s.Clock.Now().Wall), Allows: allowed{Commands: o.Commands, RunAs: o.RunAs, Terminals: o.Terminals}, Durations: durations(o.MaxDuration.AsDuration())}
	if r.Method == http.MethodPost {
		_ = r.ParseForm() // the token in it was read
		v.On, v.Reason, v.Ticket = r.PostForm["on"], r.PostFormValue("why"), r.PostFormValue("ticket")
		v.For, _ = time.ParseDuration(r.PostFormValue("for"))
		v.At, v.Labels = r.PostFormValue("at"), r.PostFormValue("labels")
	} else if again := r.FormValue("again"); again != "" {
		q, err := s.API.GetRequest(ctx, &api.GetRequestRequest{Id: again})
		if err != nil {
			return page{}, err
		}
		v.On, v.Reason, v.Ticket, v.For = q.Hosts, q.Reason, q.Ticket, q.Duration.AsDuration()
	}
	if v.At == "" && o.EligibleFrom != nil && r.Method != http.MethodPost {
		v.At = o.EligibleFrom.AsTime().Format(atForm)
	}
	if len(v.On) == 0 && len(o.Hosts) == 1 {
		v.On = o.Hosts
	}
	if !slices.Contains(v.Durations, v.For) {
		v.For = v.Durations[min(1, len(v.Durations)-1)]
	}
	return page{Name: "ask", Title: "Ask for " + o.Name, Data: v}, nil
}

// durations are those to choose from, up to the role's longest.
func durations(longest time.Duration) []time.Duration {
	var all []time.Duration
	for _, d := range []time.Duration{15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 24 * time.Hour} {
		if d < longest {
			all = append(all, d)
		}
	}
	return append(all, longest)
}

func (s *Server) ask(ctx context.Context, r *http.Request) (outcome, error) {
	d, err := time.ParseDuration(r.PostFormValue("for"))
	if err != nil {
		return outcome{}, roster.Refuse(roster.Invalid, "for how long?")
	}
	m := &api.CreateRequestRequest{
		Role: r.PathValue("role"), Hosts: r.PostForm["on"], Duration: durationpb.New(d),
		Reason: strings.TrimSpace(r.PostFormValue("why")), Ticket: strings.TrimSpace(r.PostFormValue("ticket")), Key: r.PostFormValue("key"),
	}
	if at := r.PostFormValue("at"); at != "" {
		start, err := time.Parse(atForm, at)
		if err != nil {
			return outcome{}, roster.Refuse(roster.Invalid, "when it begins: write it like 2027-01-31T22:30, in UTC")
		}
		m.Start = timestamppb.New(start)
	}
	if m.Labels, err = labelsOf(r.PostFormValue("labels")); err != nil {
		return outcome{}, err
	}
	if len(m.Labels) > 0 {
		m.Hosts = nil
	}
	if o, asked, err := s.challenged(ctx, r, m); asked {
		return o, err
	}
	m.Code, m.Assertion = proof(r)
	q, err := s.API.CreateRequest(ctx, m)
	if err != nil {
		return outcome{}, err
	}
	return outcome{to: "/requests/" + q.Id}, nil
}

// labelsOf reads tier=db, zone=a.
func labelsOf(text string) (map[string]string, error) {
	all := map[string]string{}
	for _, one := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		k, v, ok := strings.Cut(one, "=")
		if !ok {
			return nil, roster.Refuse(roster.Invalid, "write labels like tier=db, zone=a")
		}
		all[k] = v
	}
	return all, nil
}
