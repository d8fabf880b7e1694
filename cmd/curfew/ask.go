package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
)

type rolesCmd struct{}

// Run lists the caller's roles.
func (rolesCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.ListRoles(ctx, &api.ListRolesRequest{})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		var rows [][]string
		for _, role := range r.Roles {
			rows = append(rows, []string{role.Name, roster.Some(role.Hosts, ","), span(role.MaxDuration.AsDuration()), approvalOf(role), role.Description})
		}
		return table(p.out, "ROLE HOSTS LONGEST APPROVAL DESCRIPTION", rows)
	})
}

// approvalOf is what it takes to be given the role.
func approvalOf(role *api.Role) string {
	text := "none"
	if role.ApprovalsNeeded > 0 {
		text = fmt.Sprintf("%d of %s", role.ApprovalsNeeded, roster.Some(role.Approvers, ","))
	}
	for _, d := range role.Doubtful {
		text += "; " + d
	}
	if len(role.Conditions) > 0 {
		text += ", if " + strings.Join(role.Conditions, "; ")
	}
	if role.Freshness != nil {
		text += ", on a proof of the last " + span(role.Freshness.AsDuration()) + ", too"
	}
	if role.EligibleFrom != nil {
		text += ", for you from " + role.EligibleFrom.AsTime().Format(time.DateOnly) + " on: --at"
	}
	return text
}

type requestCmd struct {
	Role   string            `arg:"" optional:"" help:"The role, see curfew roles."`
	On     []string          `placeholder:"HOST,..." help:"The hosts."`
	Label  map[string]string `placeholder:"KEY=VALUE;..." help:"In place of hosts: those of the role's that have these labels now."`
	For    length            `placeholder:"TIME" help:"How long, from approval: 30m, 2h, 1d."`
	At     moment            `placeholder:"TIME" help:"When it begins, if that is not at once: 22:30 (UTC), 2027-01-31T22:30:00Z, or 6h for so long from now."`
	Why    string            `placeholder:"REASON" help:"The justification, for the approvers and the record."`
	Ticket string            `placeholder:"ID" help:"A ticket, such as INC-4121."`
	Again  string            `placeholder:"ID" help:"Ask once more for what this request was for; other flags change it."`
	NoWait bool              `help:"Return once the request is made."`
}

// Run makes a request and waits for its answer.
func (r requestCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	if r.Again != "" {
		was, err := c.GetRequest(ctx, &api.GetRequestRequest{Id: r.Again})
		if err != nil {
			return err
		}
		r = r.again(was)
	}
	if r.Role == "" || len(r.On)+len(r.Label) == 0 || r.For == 0 {
		return exit{exitUsage, errors.New("say what: curfew request ROLE --on HOST --for TIME, or --label KEY=VALUE in place of --on, or --again ID")}
	}
	m := &api.CreateRequestRequest{
		Role: r.Role, Hosts: r.On, Duration: durationpb.New(time.Duration(r.For)),
		Reason: r.Why, Ticket: r.Ticket, Key: rand.Text(), Labels: r.Label, Start: r.At.after(p.clock.Now().Wall),
	}
	made, err := p.make(ctx, c, m)
	if err != nil {
		return err
	}
	return p.follow(ctx, made, r.NoWait)
}

// make makes the request, and tells if it took no code.
func (p *program) make(ctx context.Context, c apiconnect.CurfewClient, m *api.CreateRequestRequest) (*api.Request, error) {
	made, err := onProof(ctx, p, c, func(code string) (*api.Request, error) {
		m.Code = code
		return c.CreateRequest(ctx, m)
	})
	if err == nil && made.Proof != nil {
		_, err = fmt.Fprintf(p.err, "No code was needed: you proved yourself %s.\n", proof(made))
	}
	return made, err
}

// onProof makes a call that may stand on a proof that its person made on this
// session before. If there is one, the server is asked whether it does; a code that
// is in the environment is given all the same.
func onProof[T any](ctx context.Context, p *program, c interface {
	Whoami(context.Context, *api.WhoamiRequest) (*api.WhoamiReply, error)
}, call func(code string) (T, error),
) (T, error) {
	var none T
	if os.Getenv(codeName) == "" {
		me, err := c.Whoami(ctx, &api.WhoamiRequest{})
		if err != nil {
			return none, err
		}
		if me.Proof != nil { // to a server of before, no code is a wrong one
			return proved(p, call)
		}
	}
	code, err := p.factor()
	if err != nil {
		return none, err
	}
	return call(code)
}

// proof tells on which earlier proof a request stands.
func proof(r *api.Request) string {
	what := "an " + r.Proof.For
	if r.Proof.For == "request" {
		what = "an earlier request"
	}
	ago := r.AskedAt.AsTime().Sub(r.Proof.At.AsTime()).Round(time.Second)
	return fmt.Sprintf("with %s %s before, for %s", clean(r.Proof.Factor), span(ago), clean(what))
}

// again is the request with what was not said anew taken from an earlier one.
func (r requestCmd) again(was *api.Request) requestCmd {
	r.Role, r.Why, r.Ticket = cmp.Or(r.Role, was.Role), cmp.Or(r.Why, was.Reason), cmp.Or(r.Ticket, was.Ticket)
	r.For = cmp.Or(r.For, length(was.Duration.AsDuration()))
	if len(r.On)+len(r.Label) == 0 {
		r.On = was.Hosts
	}
	return r
}

type extendCmd struct {
	Grant  string `arg:"" help:"The grant to go on from."`
	For    length `required:"" placeholder:"TIME" help:"How much longer than now."`
	Why    string `placeholder:"REASON" help:"The justification."`
	NoWait bool   `help:"Return once the request is made."`
}

// Run asks for a later end.
func (r extendCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	code, err := p.factor()
	if err != nil {
		return err
	}
	made, err := c.Extend(ctx, &api.ExtendRequest{
		Grant: r.Grant, Duration: durationpb.New(time.Duration(r.For)), Reason: r.Why, Code: code, Key: rand.Text(),
	})
	if err != nil {
		return err
	}
	return p.follow(ctx, made, r.NoWait)
}

// follow shows a request until its answer is there.
func (p *program) follow(ctx context.Context, r *api.Request, noWait bool) error {
	if t := terminals(r.Terminals); t != "" {
		if _, err := fmt.Fprintf(p.err, "Your terminals under it: %s.\n", t); err != nil {
			return err
		}
	}
	if r.State == "asked" && r.HumanSignatures && !r.Signed {
		if _, err := fmt.Fprintf(p.err, "Your own passkey has to sign it, before anybody can approve it: %s\n", clean(r.Page)); err != nil {
			return err
		}
	}
	if !noWait && r.State == "asked" {
		var err error
		if r, err = p.wait(ctx, r); err != nil {
			return err
		}
	}
	err := p.print(r, func() error { return p.tell(r) })
	if err == nil && r.State != "asked" && r.State != "issued" {
		reason := strings.TrimSpace("request " + r.Id + " was " + r.State + " " + r.DecisionNote)
		return exit{exitNotGiven, errors.New(reason)}
	}
	return err
}

func (p *program) tell(r *api.Request) error {
	if r.State == "asked" {
		_, err := fmt.Fprintf(p.out, "%s waits for %s until %s.\nWatch it with: curfew show %s\n",
			r.Id, awaited(r), at(r.LapsesAt), r.Id)
		return err
	}
	if r.State != "issued" {
		return nil
	}
	var hosts []string // not all that were asked for, perhaps
	for _, h := range r.HostStates {
		hosts = append(hosts, h.Host)
	}
	stands := "stands until " + at(r.NotAfter)
	if r.Start != nil {
		stands = "stands from " + at(r.NotBefore) + " until " + at(r.NotAfter)
	}
	_, err := fmt.Fprintf(p.out, "%s %s on %s.\nLog in with: curfew ssh %s\n", r.Grant, stands, roster.Some(hosts, ", "), hosts[0])
	return err
}

// awaited is whose word the request waits for.
func awaited(r *api.Request) string {
	if r.HumanSignatures && !r.Signed {
		return clean(r.WaitsFor)
	}
	return roster.Some(r.Approvers, " or ")
}

// wait follows the request until it leaves the state asked. A stream that
// breaks is opened again; Ctrl-C leaves the request as it is.
func (p *program) wait(ctx context.Context, r *api.Request) (*api.Request, error) {
	_, err := fmt.Fprintf(p.err, "%s waits for %s until %s. Ctrl-C stops waiting, not the request; curfew withdraw %s takes it back.\n",
		r.Id, awaited(r), at(r.LapsesAt), r.Id)
	if err != nil {
		return nil, err
	}
	c, err := p.client()
	if err != nil {
		return nil, err
	}
	for {
		s, err := c.WatchRequest(ctx, &api.GetRequestRequest{Id: r.Id})
		if err != nil {
			return nil, err
		}
		for s.Receive() {
			if s.Msg().State != "asked" {
				return s.Msg(), s.Close()
			}
			for _, a := range s.Msg().Approvals[min(len(r.Approvals), len(s.Msg().Approvals)):] {
				_, _ = fmt.Fprintf(p.err, "%s approved%s; %d needed.\n", clean(a.Person), clean(less(a)), s.Msg().ApprovalsNeeded)
			}
			for _, m := range s.Msg().Remarks[min(len(r.Remarks), len(s.Msg().Remarks)):] {
				_, _ = fmt.Fprintf(p.err, "%s says: %s (answer: curfew comment %s TEXT)\n", clean(m.Person), line(m.Text), r.Id)
			}
			r = s.Msg()
		}
		_ = s.Close()
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("stopped waiting; the request goes on: curfew show %s", r.Id)
		case <-p.clock.After(time.Second):
		}
	}
}

type withdrawCmd struct {
	ID string `arg:"" help:"The request."`
}

// Run takes a request back.
func (w withdrawCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.Withdraw(ctx, &api.WithdrawRequest{Id: w.ID})
	if err != nil {
		return err
	}
	return p.print(r, func() error { return describe(p.out, r) })
}

type requestsCmd struct {
	All       bool `help:"Also those whose life is over."`
	ToApprove bool `help:"Only those that wait for your word."`
}

// Run lists requests.
func (l requestsCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.ListRequests(ctx, &api.ListRequestsRequest{All: l.All, ForApproval: l.ToApprove})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		var rows [][]string
		for _, q := range r.Requests {
			rows = append(rows, []string{
				q.Id, q.State, q.Person, q.Role, roster.Some(q.Hosts, ","), span(q.Duration.AsDuration()),
				q.Grant, at(q.NotAfter), strconv.Quote(q.Reason),
			})
		}
		return table(p.out, "REQUEST STATE WHO ROLE ON FOR GRANT UNTIL WHY", rows)
	})
}
