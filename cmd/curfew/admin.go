package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"curfew.internal/wire/api"
)

type peopleCmd struct {
	Add     addPersonCmd     `cmd:"" help:"Add a person, and print the code for her to enrol with."`
	Invite  invitePersonCmd  `cmd:"" help:"Print a new code; her devices and her second factor are replaced when she uses it."`
	Email   emailCmd         `cmd:"" help:"Say where a person is told what concerns her."`
	Disable disablePersonCmd `cmd:"" help:"End a person's sessions, requests and grants now, and let her do no more."`
	List    listPeopleCmd    `cmd:"" default:"withargs" help:"List the people."`
}

// proved makes a call that may need a fresh code of the second factor: first
// without one, and with one if the server asks for it.
func proved[T any](p *program, call func(code string) (T, error)) (T, error) {
	r, err := call("")
	if ce := (*connect.Error)(nil); !errors.As(err, &ce) || ce.Meta().Get("Curfew-Needs") != "code" {
		return r, err
	}
	code, err := p.factor()
	if err != nil {
		return r, err
	}
	return call(code)
}

type addPersonCmd struct {
	Name     string `arg:"" help:"The account name on every host."`
	FullName string `placeholder:"TEXT" help:"As people know her."`
	Email    string `placeholder:"ADDRESS" help:"Where she is told what concerns her."`
	Admin    bool   `help:"May administer people and hosts."`
}

// Run adds a person.
func (a addPersonCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := proved(p, func(code string) (*api.InviteReply, error) {
		return c.AddPerson(ctx, &api.AddPersonRequest{Name: a.Name, FullName: a.FullName, Admin: a.Admin, Email: a.Email, Code: code})
	})
	if err != nil {
		return err
	}
	return p.invited(r)
}

func (p *program) invited(r *api.InviteReply) error {
	return p.print(r, func() error {
		if _, err := fmt.Fprintf(p.err, "For %s alone, once, until %s: curfew login CODE, with this code:\n", r.Person.Name, at(r.Expires)); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(p.out, r.Invite); err != nil || r.Link == "" {
			return err
		}
		_, err := fmt.Fprintf(p.err, "Or, in place of that, with a passkey in a browser: %s\n", r.Link)
		return err
	})
}

type invitePersonCmd struct {
	Name string `arg:"" help:"The person."`
}

// Run makes a new invite.
func (i invitePersonCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := proved(p, func(code string) (*api.InviteReply, error) {
		return c.InvitePerson(ctx, &api.InvitePersonRequest{Name: i.Name, Code: code})
	})
	if err != nil {
		return err
	}
	return p.invited(r)
}

type emailCmd struct {
	Name    string `arg:"" help:"The person."`
	Address string `arg:"" optional:"" help:"Such as ana@example.com; left out, she is told nothing by mail."`
}

// Run says where a person is told what concerns her.
func (e emailCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := proved(p, func(code string) (*api.Person, error) {
		return c.SetEmail(ctx, &api.SetEmailRequest{Name: e.Name, Email: e.Address, Code: code})
	})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		text := fmt.Sprintf("%s is told at %s.\n", clean(r.Name), clean(r.Email))
		if r.Email == "" {
			text = fmt.Sprintf("%s is told nothing by mail.\n", clean(r.Name))
		}
		_, err := fmt.Fprint(p.out, text)
		return err
	})
}

type disablePersonCmd struct {
	Name string `arg:"" help:"The person."`
}

// Run disables a person.
func (d disablePersonCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.DisablePerson(ctx, &api.DisablePersonRequest{Name: d.Name})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		_, err := fmt.Fprintf(p.out, "Disabled %s.\n", r.Name)
		return err
	})
}

type listPeopleCmd struct{}

// Run lists people.
func (listPeopleCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.ListPeople(ctx, &api.ListPeopleRequest{})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		var rows [][]string
		for _, x := range r.People {
			state := "active"
			switch {
			case x.Disabled:
				state = "disabled"
			case !x.Enrolled:
				state = "invited"
			}
			rows = append(rows, []string{x.Name, strconv.Itoa(int(x.Uid)), state, strconv.FormatBool(x.Admin), cmp.Or(x.Email, "-"), x.FullName})
		}
		return table(p.out, "NAME UID STATE ADMIN EMAIL FULL-NAME", rows)
	})
}

type hostsCmd struct {
	Token        tokenCmd        `cmd:"" help:"Print a token that lets one host join."`
	List         listHostsCmd    `cmd:"" default:"withargs" help:"List the hosts."`
	Show         showHostCmd     `cmd:"" help:"Show one host, and what its doctor says."`
	Decommission decommissionCmd `cmd:"" help:"Take a host out: what stands on it is taken away, then it is refused."`
}

type tokenCmd struct {
	Label map[string]string `placeholder:"KEY=VALUE;..." help:"Labels of the host; they decide who gets in. Without any, a host of the fleet that is named keeps those that it has."`
	Host  string            `placeholder:"NAME" help:"Only for the host of this name."`
}

// Run makes a join token.
func (t tokenCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := proved(p, func(code string) (*api.CreateJoinTokenReply, error) {
		return c.CreateJoinToken(ctx, &api.CreateJoinTokenRequest{Labels: t.Label, Host: t.Host, Code: code})
	})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		if _, err := fmt.Fprintf(p.err, "For one host, once, until %s: curfew-agent join, with this token on standard input:\n", at(r.Expires)); err != nil {
			return err
		}
		_, err := fmt.Fprintln(p.out, r.Token)
		return err
	})
}

type decommissionCmd struct {
	Name string `arg:"" help:"The host."`
}

// Run takes a host out.
func (d decommissionCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.DecommissionHost(ctx, &api.DecommissionHostRequest{Name: d.Name})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		text := "Decommissioned %s: nothing stands on it.\n"
		if r.Leaving {
			text = "Decommissioned %s. Grants stand on it: it is told to take them away, and is refused once it has.\n" +
				"curfew hosts says whether it has; if it is gone for good, what it held ends by its own clock.\n"
		}
		_, err := fmt.Fprintf(p.out, text, r.Name)
		return err
	})
}

type curlCmd struct {
	Method string `arg:"" help:"Such as ListRoles, see docs/protocol/api.md."`
	JSON   string `arg:"" optional:"" default:"{}" help:"The request."`
}

// Run makes one signed call and prints what comes back.
func (c curlCmd) Run(ctx context.Context, p *program) error {
	s, err := p.loadSession()
	if err != nil {
		return err
	}
	h, err := p.signing(s)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/curfew.api.v1.Curfew/"+c.Method, strings.NewReader(c.JSON))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	r, err := h.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(p.out, r.Body)
	err = errors.Join(err, r.Body.Close())
	if err == nil && r.StatusCode != http.StatusOK {
		return exit{exitRefused, errors.New("the server said " + r.Status)}
	}
	return err
}
