package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/wire/api"
)

type delegateCmd struct {
	To   delegateToCmd   `cmd:"" help:"Let somebody approve in your place for some time."`
	List delegateListCmd `cmd:"" help:"List who approves in whose place: yours, those that you stand in by, and for admins all."`
	End  delegateEndCmd  `cmd:"" help:"End one now: yours, one that you stand in by, and for admins any."`
}

type delegateToCmd struct {
	Person string `arg:"" help:"Who approves in your place."`
	From   moment `placeholder:"TIME" help:"From when: 22:30 (UTC), 2027-01-31T22:30:00Z, or 2d from now; now, if it is left out."`
	Until  moment `placeholder:"TIME" help:"Until when, in the same way."`
	For    length `placeholder:"TIME" help:"For how long, such as 7d, in place of --until."`
	Note   string `placeholder:"TEXT" help:"For whoever reads the record."`
}

// Help says what it comes to.
func (delegateToCmd) Help() string {
	return `While you are away, PERSON may approve and deny what you could, where the role's
policy has a delegation. She proves herself as always, and gives one word however
many she stands in for; the record, the request and its page say both your names.
You may still approve yourself, and end it at any time, as may she.

  curfew delegate to ben --for 7d --note 'skiing'
  curfew delegate to ben --from 2027-01-31T08:00:00Z --until 2027-02-07T18:00:00Z`
}

// Run delegates.
func (d delegateToCmd) Run(ctx context.Context, p *program) error {
	now := p.clock.Now().Wall
	m := &api.DelegateRequest{StandIn: d.Person, From: d.From.after(now), Until: d.Until.after(now), Note: d.Note}
	switch {
	case (m.Until == nil) == (d.For == 0):
		return exit{exitUsage, errors.New("say until when: --until TIME, or for how long: --for 7d")}
	case d.For > 0 && m.From != nil:
		m.Until = timestamppb.New(m.From.AsTime().Add(time.Duration(d.For)))
	case d.For > 0:
		m.Until = timestamppb.New(now.Add(time.Duration(d.For)))
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	if m.Code, err = p.factor(); err != nil {
		return err
	}
	r, err := c.Delegate(ctx, m)
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		_, err := fmt.Fprintf(p.out, "%s may approve in your place from %s to %s. End it sooner with: curfew delegate end %s\n",
			line(r.Delegation.StandIn), at(r.Delegation.From), at(r.Delegation.Until), r.Delegation.Id)
		for _, role := range r.Roles {
			if err == nil {
				_, err = fmt.Fprintf(p.out, "  for %s\n", line(role))
			}
		}
		for _, not := range r.Not {
			if err == nil {
				_, err = fmt.Fprintf(p.out, "  not for %s\n", line(not))
			}
		}
		return err
	})
}

type delegateListCmd struct{}

// Run lists.
func (delegateListCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.ListDelegations(ctx, &api.ListDelegationsRequest{})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		var rows [][]string
		for _, d := range r.Delegations {
			rows = append(rows, []string{d.Id, d.Away, d.StandIn, at(d.From), at(d.Until), d.Note})
		}
		return table(p.out, "ID AWAY APPROVES FROM UNTIL NOTE", rows)
	})
}

type delegateEndCmd struct {
	ID string `arg:"" help:"The delegation."`
}

// Run ends one.
func (d delegateEndCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.EndDelegation(ctx, &api.EndDelegationRequest{Id: d.ID})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		_, err := fmt.Fprintf(p.out, "Ended: %s may no longer approve in place of %s.\n", line(r.Delegation.StandIn), line(r.Delegation.Away))
		return err
	})
}
