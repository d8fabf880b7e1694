package web

import (
	"context"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// most is how many lines a list on a page has; what is left out is said.
const most = 200

// requestView is everything about one request, on one screen.
type requestView struct {
	*api.Request
	Allows  allowed
	Others  []*api.Request // grants of the role that stand now, of other people
	Last    *lastTime
	Moments []*api.Moment
	Cut     int    // moments that are left out
	Left    string // until the grant ends, or the request lapses
	Begins  string // until the grant begins; empty: it has

	MayApprove, MayDeny, MayWithdraw, MayRevoke, MayExtend, MaySign bool
	Extensions                                                      []time.Duration
	Shorter                                                         []time.Duration // than was asked for
	Remarks                                                         []*api.Moment
	MaySpeak                                                        bool
	Note                                                            string // as it was typed
}

// lastTime is what the person did with the role the last time.
type lastTime struct {
	Request  *api.Request
	Commands []ran
	More     int
	Logins   int
	Left     []string // what a host could not take away
}

type ran struct {
	Host, Line string
	Times      int
}

// mostRan is how many different command lines of the last time are shown.
const mostRan = 8

func (s *Server) request(ctx context.Context, r *http.Request) (page, error) {
	id := r.PathValue("id")
	story, err := s.API.Timeline(ctx, &api.TimelineRequest{Grant: id})
	if err != nil {
		return page{}, err
	}
	me, err := s.API.Whoami(ctx, &api.WhoamiRequest{})
	if err != nil {
		return page{}, err
	}
	all, err := s.API.ListRequests(ctx, &api.ListRequestsRequest{All: true})
	if err != nil {
		return page{}, err
	}
	q, now := story.Request, s.Clock.Now().Wall
	v := requestView{Request: q, Allows: allowedBy(q), Note: r.PostFormValue("note"), Moments: story.Moments}
	for _, m := range v.Moments {
		if m.What == roster.RemarkStep {
			v.Remarks = append(v.Remarks, m)
		}
	}
	if n := len(v.Moments); n > most {
		v.Moments, v.Cut = v.Moments[:most], n-most
	}
	if v.Others, err = s.others(ctx, q, now); err != nil {
		return page{}, err
	}
	if v.Last, err = s.lastTime(ctx, q, all.Requests); err != nil {
		return page{}, err
	}
	own := q.Person == me.Person.Name
	v.MaySpeak = q.State == "asked" || q.State == "issued"
	switch q.State {
	case "asked":
		v.Shorter = shorter(q.Duration.AsDuration())
		v.Left = left(now, q.LapsesAt)
		v.MayApprove = slices.Contains(q.Approvers, me.Person.Name)
		v.MayDeny, v.MayWithdraw = !own && (v.MayApprove || me.Person.Admin), own
		v.MaySign = own && q.HumanSignatures && !q.Signed
	case "issued":
		v.Left = left(now, q.NotAfter)
		if now.Before(q.NotBefore.AsTime()) {
			v.Begins = left(now, q.NotBefore)
		}
		v.MayRevoke = true // whoever sees a grant may end it, but for a few whom the API refuses
		v.MayExtend = own && stands(q, now) && !q.HumanSignatures
		v.Extensions = []time.Duration{15 * time.Minute, 30 * time.Minute, time.Hour}
	}
	return page{Name: "request", Title: q.Role + " for " + q.Person, Data: v}, nil
}

// others are the grants of a request's role that other people have now.
func (s *Server) others(ctx context.Context, q *api.Request, now time.Time) ([]*api.Request, error) {
	open, err := s.API.ListRequests(ctx, &api.ListRequestsRequest{}) // of all only the newest are told
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(open.Requests, func(o *api.Request) bool {
		return o.Role != q.Role || o.Person == q.Person || !stands(o, now)
	}), nil
}

// shorter are the lengths to choose from for less than was asked for.
func shorter(asked time.Duration) []time.Duration {
	all := durations(asked)
	return all[:len(all)-1]
}

func stands(q *api.Request, now time.Time) bool {
	return q.State == "issued" && q.NotAfter != nil && now.Before(q.NotAfter.AsTime()) && !now.Before(q.NotBefore.AsTime())
}

// lastTime tells of the newest earlier grant of the role to the same person.
func (s *Server) lastTime(ctx context.Context, q *api.Request, all []*api.Request) (*lastTime, error) {
	i := slices.IndexFunc(all, func(o *api.Request) bool { // the newest is the first
		return o.Person == q.Person && o.Role == q.Role && o.Id != q.Id && o.Grant != "" && o.AskedAt.AsTime().Before(q.AskedAt.AsTime())
	})
	if i < 0 {
		return nil, nil //nolint:nilnil // there was no such time
	}
	story, err := s.API.Timeline(ctx, &api.TimelineRequest{Grant: all[i].Id})
	if err != nil {
		return nil, err
	}
	v := &lastTime{Request: story.Request}
	for _, m := range story.Moments {
		switch {
		case m.What == "login":
			v.Logins++
		case m.What == "exec" && m.Event != nil && m.Event.Process != nil:
			v.add(ran{Host: m.Host, Line: m.Text, Times: 1})
		}
	}
	for _, h := range story.Request.HostStates {
		v.Left = append(v.Left, slices.Concat(h.Left, h.Leftovers)...)
	}
	return v, nil
}

func (v *lastTime) add(r ran) {
	for i := range v.Commands {
		if c := &v.Commands[i]; c.Host == r.Host && c.Line == r.Line {
			c.Times++
			return
		}
	}
	if len(v.Commands) == mostRan {
		v.More++
		return
	}
	v.Commands = append(v.Commands, r)
}

// decide does what somebody pressed on a request's page.
func (s *Server) decide(ctx context.Context, r *http.Request) (outcome, error) {
	id, note := r.PathValue("id"), strings.TrimSpace(r.PostFormValue("note"))
	o := outcome{to: "/requests/" + id}
	var err error
	switch r.PathValue("do") {
	case "approve":
		return s.approve(ctx, r, note)
	case "sign":
		return s.sign(ctx, r)
	case "deny":
		_, err = s.API.Deny(ctx, &api.DenyRequest{Id: id, Note: note})
	case "comment":
		_, err = s.API.Comment(ctx, &api.CommentRequest{Id: id, Text: note})
	case "withdraw":
		_, err = s.API.Withdraw(ctx, &api.WithdrawRequest{Id: id})
	case "revoke":
		_, err = s.API.Revoke(ctx, &api.RevokeRequest{Grant: id, Note: note})
		if r.PostFormValue("to") == "access" {
			o.to = "/access"
		}
	case "extend":
		return s.extend(ctx, r)
	default:
		err = errNoDeed
	}
	return o, err
}

var errNoDeed = roster.Refuse(roster.Missing, "there is nothing of that kind to do")

func (s *Server) approve(ctx context.Context, r *http.Request, note string) (outcome, error) {
	digest, err := hex.DecodeString(r.PostFormValue("digest"))
	if err != nil {
		return outcome{}, roster.Refuse(roster.Invalid, "load the page again, then decide")
	}
	m := &api.ApproveRequest{Id: r.PathValue("id"), Digest: digest, Note: note, Hosts: r.PostForm["on"], InPlaceOf: r.PostFormValue("place")}
	if r.PostFormValue("some") != "" && len(m.Hosts) == 0 {
		return outcome{}, roster.Refuse(roster.Invalid, "choose one of the hosts, or deny it")
	}
	if f := r.PostFormValue("for"); f != "" {
		d, err := time.ParseDuration(f)
		if err != nil {
			return outcome{}, roster.Refuse(roster.Invalid, "for how long?")
		}
		m.Duration = durationpb.New(d)
	}
	if o, asked, err := s.challenged(ctx, r, m); asked {
		return o, err
	}
	m.Code, m.Assertion = proof(r)
	_, err = s.API.Approve(ctx, m)
	return outcome{to: "/requests/" + m.Id}, err
}

// sign puts the visitor's passkey under her own request.
func (s *Server) sign(ctx context.Context, r *http.Request) (outcome, error) {
	digest, err := hex.DecodeString(r.PostFormValue("digest"))
	if err != nil {
		return outcome{}, roster.Refuse(roster.Invalid, "load the page again, then sign")
	}
	m := &api.SignRequest{Id: r.PathValue("id"), Digest: digest}
	if o, asked, err := s.challenged(ctx, r, m); asked {
		return o, err
	}
	_, m.Assertion = proof(r)
	_, err = s.API.Sign(ctx, m)
	return outcome{to: "/requests/" + m.Id}, err
}

func (s *Server) extend(ctx context.Context, r *http.Request) (outcome, error) {
	d, err := time.ParseDuration(r.PostFormValue("for"))
	if err != nil {
		return outcome{}, roster.Refuse(roster.Invalid, "for how much longer?")
	}
	m := &api.ExtendRequest{Grant: r.PathValue("id"), Duration: durationpb.New(d), Reason: strings.TrimSpace(r.PostFormValue("note")), Key: r.PostFormValue("key")}
	if o, asked, err := s.challenged(ctx, r, m); asked {
		return o, err
	}
	m.Code, m.Assertion = proof(r)
	q, err := s.API.Extend(ctx, m)
	if err != nil {
		return outcome{}, err
	}
	return outcome{to: "/requests/" + q.Id}, nil
}

// proof is what the form brings: a passkey's answer, or else a code.
func proof(r *http.Request) (code string, assertion []byte) {
	if a := r.PostFormValue("assertion"); a != "" {
		return "", []byte(a)
	}
	return strings.TrimSpace(r.PostFormValue("code")), nil
}

// grantRow is a grant in the list of who has what.
type grantRow struct {
	*api.Request
	Left string // until its end, or its beginning
	Over bool   // it ended, but what runs may still drain
}

func rowOf(q *api.Request, now time.Time) grantRow {
	row := grantRow{Request: q, Left: left(now, q.NotAfter) + " left", Over: !now.Before(q.NotAfter.AsTime())}
	if q.NotBefore != nil && now.Before(q.NotBefore.AsTime()) {
		row.Left = "begins in " + left(now, q.NotBefore)
	}
	return row
}

// access lists who has what now.
func (s *Server) access(ctx context.Context, _ *http.Request) (page, error) {
	open, err := s.API.ListRequests(ctx, &api.ListRequestsRequest{})
	if err != nil {
		return page{}, err
	}
	now := s.Clock.Now().Wall
	var rows []grantRow
	for _, q := range open.Requests {
		if q.State == "issued" {
			rows = append(rows, rowOf(q, now))
		}
	}
	slices.SortStableFunc(rows, func(a, b grantRow) int { return a.NotAfter.AsTime().Compare(b.NotAfter.AsTime()) })
	return page{Name: "access", Title: "Who has what now", Data: rows}, nil
}

// requestsView is a list of requests.
type requestsView struct {
	Waiting []*api.Request // for the visitor's word
	All     []*api.Request
	Cut     bool
}

func (s *Server) requests(ctx context.Context, _ *http.Request) (page, error) {
	waiting, err := s.API.ListRequests(ctx, &api.ListRequestsRequest{ForApproval: true})
	if err != nil {
		return page{}, err
	}
	all, err := s.API.ListRequests(ctx, &api.ListRequestsRequest{All: true, Limit: most})
	if err != nil {
		return page{}, err
	}
	return page{Name: "requests", Title: "Requests", Data: requestsView{waiting.Requests, all.Requests, len(all.Requests) == most}}, nil
}
