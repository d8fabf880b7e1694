package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

type policyExplainCmd struct {
	Person string            `arg:"" help:"Who would ask."`
	Role   string            `arg:"" help:"For which role."`
	On     string            `placeholder:"HOST" help:"On which host; the server tells its labels, if --label does not."`
	Label  map[string]string `placeholder:"KEY=VALUE;..." help:"The labels of the host, in place of those that the server knows."`
	For    length            `placeholder:"TIME" help:"For how long, such as 2h."`
	Ticket *string           `placeholder:"ID" help:"With which ticket."`
	Source *string           `name:"from" placeholder:"ADDRESS" help:"From which address, such as 10.0.0.7."`
	Risk   map[string]string `placeholder:"FACT=VALUE;..." help:"What is known of the risk: new_network=true, first_time=true, factor_refused=3, factor_age=2h."`
	At     when              `placeholder:"TIME" help:"When, such as 2027-01-31T14:00:00Z; now."`
	Dir    string            `type:"existingdir" placeholder:"DIR" help:"A policy folder, in place of the policy in force, which needs an admin's session."`
}

// Help teaches how to read the answer.
func (policyExplainCmd) Help() string {
	return `Each rule that decides has a line: yes, NO with what would change it, or what
else it needs. WHERE is the file, line and column that says so. What is left
out (--on, --for, --ticket, --from, --risk) is not judged; the line says what would be.

  curfew policy explain ana db-admin --on db1 --for 2h
  curfew policy explain ana db-admin --dir policy/ --label tier=db
  curfew policy explain ana db-admin --dir policy/ --at 2027-07-01T00:00:00Z`
}

// Run explains.
func (c policyExplainCmd) Run(ctx context.Context, p *program) error {
	rules, err := p.policyIn(ctx, c.Dir)
	if err != nil {
		return err
	}
	q := policy.Case{Person: c.Person, Role: c.Role, For: time.Duration(c.For), Ticket: c.Ticket, At: p.clock.Now().Wall.UTC()}
	if t := c.At.before(q.At); t != nil {
		q.At = t.AsTime()
	}
	if c.Source != nil {
		a, err := netip.ParseAddr(*c.Source)
		if err != nil {
			return exit{exitUsage, fmt.Errorf("%.40q is no address: say one like 10.0.0.7", *c.Source)}
		}
		q.Source = a.Unmap().String()
	}
	if q.Risk, err = policy.ParseRisk(c.Risk); err != nil {
		return exit{exitUsage, fmt.Errorf("--risk: %w", err)}
	}
	if q.Host, err = c.host(ctx, p); err != nil {
		return err
	}
	if q.Away, err = c.lent(ctx, p, q.At); err != nil {
		return err
	}
	e := rules.Explain(q)
	if p.Output == "json" {
		return json.NewEncoder(p.out).Encode(e)
	}
	return c.print(p, q, e)
}

// lent are the delegations that stand then, if the policy is that of a server.
func (c policyExplainCmd) lent(ctx context.Context, p *program, at time.Time) ([]roster.Delegation, error) {
	if c.Dir != "" {
		return nil, nil
	}
	client, err := p.client()
	if err != nil {
		return nil, err
	}
	r, err := client.ListDelegations(ctx, &api.ListDelegationsRequest{})
	if err != nil {
		return nil, err
	}
	var all []roster.Delegation
	for _, m := range r.Delegations {
		if d := (roster.Delegation{Away: m.Away, StandIn: m.StandIn, From: m.From.AsTime(), Until: m.Until.AsTime()}); d.Stands(at) {
			all = append(all, d)
		}
	}
	return all, nil
}

// host is the host that is asked about, with its labels; nil if none is.
func (c policyExplainCmd) host(ctx context.Context, p *program) (*roster.Host, error) {
	switch {
	case len(c.Label) > 0 && c.On == "":
		return &roster.Host{Name: "such a host", Labels: c.Label}, nil
	case len(c.Label) > 0:
		return &roster.Host{Name: c.On, Labels: c.Label}, nil
	case c.On == "":
		return nil, nil //nolint:nilnil // no host is asked about
	}
	hosts, err := p.hosts(ctx)
	if err != nil {
		if errors.As(err, new(exit)) && c.Dir != "" {
			return nil, exit{exitUsage, fmt.Errorf("the labels of %s are not known without a server: say them, with --label tier=db, or sign in", c.On)}
		}
		return nil, err
	}
	for _, h := range hosts {
		if h.Name == c.On {
			return &h, nil
		}
	}
	return nil, exit{exitRefused, fmt.Errorf("no host %s is in the fleet: see `curfew hosts`, or say its labels with --label", c.On)}
}

// hosts are those that are in the fleet.
func (p *program) hosts(ctx context.Context) ([]roster.Host, error) {
	c, err := p.client()
	if err != nil {
		return nil, err
	}
	r, err := c.ListHosts(ctx, &api.ListHostsRequest{})
	if err != nil {
		return nil, err
	}
	var all []roster.Host
	for _, h := range r.Hosts {
		if !h.Decommissioned && !h.Leaving {
			all = append(all, roster.Host{Name: h.Name, Labels: h.Labels})
		}
	}
	return all, nil
}

func (c policyExplainCmd) print(p *program, q policy.Case, e policy.Explanation) error {
	what := c.Role
	if q.Host != nil {
		what += " on " + q.Host.Name
	}
	if q.For > 0 {
		what += " for " + span(q.For)
	}
	answer := "may ask for"
	if !e.Allowed {
		answer = "may NOT ask for"
	}
	if _, err := fmt.Fprintf(p.out, "%s %s %s, at %s.\n\n", line(c.Person), answer, line(what), stamp(q.At)); err != nil {
		return err
	}
	var rows [][]string
	for _, f := range e.Findings {
		says := map[string]string{policy.Allows: "yes", policy.Needs: "needs", policy.Refuses: "NO"}[f.Says]
		rows = append(rows, []string{says, f.Rule, where(f.Place), strings.Join(append([]string{f.Text}, nonempty(f.Fix)...), ": ")})
	}
	return table(p.out, "ANSWER RULE WHERE WHY", rows)
}

func where(at policy.Place) string {
	if at.Line == 0 {
		return "-"
	}
	return at.String()
}

func nonempty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
