package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"curfew.internal/wire/api"
)

type showCmd struct {
	ID string `arg:"" help:"A request, or its grant."`
}

// Run shows a request.
func (s showCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.GetRequest(ctx, &api.GetRequestRequest{Id: s.ID})
	if err != nil {
		return err
	}
	return p.print(r, func() error { return describe(p.out, r) })
}

type approveCmd struct {
	ID   string   `arg:"" help:"The request."`
	Note string   `placeholder:"TEXT" help:"A word to the requester."`
	For  length   `placeholder:"TIME" help:"For less time than was asked for."`
	On   []string `placeholder:"HOST,..." help:"Only on these of the hosts."`
}

// Run shows the request, asks for the second factor, and approves what was
// shown: its digest goes with the approval.
func (a approveCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.GetRequest(ctx, &api.GetRequestRequest{Id: a.ID})
	if err != nil {
		return err
	}
	if err := describe(p.err, r); err != nil {
		return err
	}
	if r.HumanSignatures && r.State == "asked" {
		return exit{exitNotGiven, fmt.Errorf("your own passkey has to sign the approval: say yes or no on its page, %s", clean(r.Page))}
	}
	code, err := p.factor()
	if err != nil {
		return err
	}
	m := &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: code, Note: a.Note, Hosts: a.On, InPlaceOf: r.InPlaceOf}
	if a.For > 0 {
		m.Duration = durationpb.New(time.Duration(a.For))
	}
	done, err := c.Approve(ctx, m)
	if err != nil {
		return err
	}
	return p.print(done, func() error {
		if done.State != "issued" {
			_, err = fmt.Fprintf(p.out, "Approved; %d of %d approvals are there.\n", len(done.Approvals), done.ApprovalsNeeded)
			return err
		}
		_, err = fmt.Fprintf(p.out, "Approved: %s stands until %s. End it sooner with: curfew revoke %s\n", done.Grant, at(done.NotAfter), done.Grant)
		return err
	})
}

type commentCmd struct {
	ID   string `arg:"" help:"The request."`
	Text string `arg:"" help:"What to say, or to ask."`
}

// Run says something on a request; who waits for it reads it.
func (m commentCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.Comment(ctx, &api.CommentRequest{Id: m.ID, Text: m.Text})
	if err != nil {
		return err
	}
	return p.print(r, func() error { return describe(p.out, r) })
}

type denyCmd struct {
	ID  string `arg:"" help:"The request."`
	Why string `placeholder:"TEXT" help:"A word to the requester."`
}

// Run denies a request.
func (d denyCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.Deny(ctx, &api.DenyRequest{Id: d.ID, Note: d.Why})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		_, err := fmt.Fprintf(p.out, "Denied %s.\n", r.Id)
		return err
	})
}

type revokeCmd struct {
	Grant string `arg:"" help:"The grant."`
	Why   string `placeholder:"TEXT" help:"For the record, and for the person."`
}

// Run ends a grant.
func (v revokeCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.Revoke(ctx, &api.RevokeRequest{Grant: v.Grant, Note: v.Why})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		_, err := fmt.Fprintf(p.out, "Revoked %s. See what the hosts say with: curfew timeline %s\n", r.Grant, r.Grant)
		return err
	})
}
