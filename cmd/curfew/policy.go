package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/policy/folder"
	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

type policyCmd struct {
	Check   policyCheckCmd   `cmd:"" help:"Check a policy folder, without a server."`
	Explain policyExplainCmd `cmd:"" help:"Say why somebody may or may not ask for a role: each rule, with file and line."`
	Test    policyTestCmd    `cmd:"" help:"Try the test cases that are kept beside a policy."`
	Plan    policyPlanCmd    `cmd:"" help:"Say what a change of the policy would do, and to whom."`
	Status  policyStatusCmd  `cmd:"" help:"Say which policy is in force, and what is wrong with the folder as it is now."`
}

type policyCheckCmd struct {
	Dir    string `arg:"" type:"existingdir" help:"The folder with the *.yaml files."`
	Strict bool   `help:"Take warnings for mistakes."`
	Fleet  bool   `help:"Ask the server, as an admin, whether the people are known to it."`
}

// Help teaches what is looked at.
func (policyCheckCmd) Help() string {
	return `Each line is FILE:LINE:COLUMN, what is wrong, and what to write instead.
Mistakes leave no policy, and the code is 3. Warnings stop nothing, but with
--strict: commands that give a shell or write any file, roles that only look,
approvals by nobody or by everybody, grants of more than a day, eligibility
that is over; with --fleet, people whom the server does not know.

  curfew policy check policy/
  curfew policy check policy/ --strict          in the reviews of your git
  curfew policy check policy/ --fleet -o json`
}

// Run prints every mistake of the folder, with file, line and fix.
func (c policyCheckCmd) Run(ctx context.Context, p *program) error {
	found, problems, err := folder.Read(os.DirFS(c.Dir))
	if err != nil {
		return err
	}
	if policy.Holds(problems) {
		problems = append(problems, found.Aged(p.clock.Now().Wall)...)
	}
	if policy.Holds(problems) && c.Fleet {
		people, err := p.people(ctx)
		if err != nil {
			return err
		}
		problems = append(problems, found.Strangers(people)...)
	}
	if err := p.problems(problems, c.Dir+" is a valid policy."); err != nil {
		return err
	}
	mistakes := slices.DeleteFunc(slices.Clone(problems), func(pr policy.Problem) bool { return pr.Warning })
	switch {
	case len(mistakes) > 0:
		return exit{exitRefused, fmt.Errorf("mistakes in %s: %d", c.Dir, len(mistakes))}
	case c.Strict && len(problems) > 0:
		return exit{exitRefused, fmt.Errorf("warnings in %s: %d, and --strict takes none", c.Dir, len(problems))}
	}
	return nil
}

// policyIn reads the policy of a folder, which has to hold; without a folder,
// the one that is in force on the server.
func (p *program) policyIn(ctx context.Context, dir string) (policy.Policy, error) {
	if dir == "" {
		return p.policyInForce(ctx)
	}
	found, problems, err := folder.Read(os.DirFS(dir))
	if err != nil {
		return policy.Policy{}, err
	}
	if !policy.Holds(problems) {
		for _, pr := range problems {
			if !pr.Warning {
				_, _ = fmt.Fprintln(p.err, clean(pr.String()))
			}
		}
		return policy.Policy{}, exit{exitRefused, fmt.Errorf("%s is no valid policy: mend it first", dir)}
	}
	return found, nil
}

func (p *program) policyInForce(ctx context.Context) (policy.Policy, error) {
	c, err := p.client()
	if err != nil {
		return policy.Policy{}, err
	}
	r, err := c.PolicyStatus(ctx, &api.PolicyStatusRequest{Files: true})
	if err != nil {
		return policy.Policy{}, err
	}
	if len(r.Files) == 0 {
		return policy.Policy{}, exit{exitRefused, errors.New("no policy is in force on the server: `curfew policy status` says why")}
	}
	found, problems := policy.Parse(r.Files)
	if !policy.Holds(problems) {
		return policy.Policy{}, errors.New("this program and the server are of different versions: the policy in force cannot be read here")
	}
	kept := roster.Directory{Members: map[string][]string{}, Managers: r.Managers}
	for name, m := range r.Directory {
		kept.Members[name] = m.People
	}
	return found.With(kept).Called(called(r.OnCall)), nil
}

// called is what the server knows of who is on call. One from before it said so
// knows nothing.
func called(m *api.OnCall) roster.Calls {
	c := roster.Calls{Rotations: map[string][]roster.Turn{}, Why: m.GetWhy()}
	for name, all := range m.GetRotations() {
		c.Rotations[name] = []roster.Turn{}
		for _, t := range all.Turns {
			c.Rotations[name] = append(c.Rotations[name], roster.Turn{Person: t.Person, From: t.From.AsTime(), Until: t.Until.AsTime()})
		}
	}
	return c
}

// problems prints what is wrong with a folder, or that it holds.
func (p *program) problems(problems []policy.Problem, good string) error {
	if p.Output == "json" {
		return json.NewEncoder(p.out).Encode(map[string]any{"valid": policy.Holds(problems), "problems": append([]policy.Problem{}, problems...)})
	}
	for _, pr := range problems {
		if _, err := fmt.Fprintln(p.out, clean(pr.String())); err != nil {
			return err
		}
	}
	if !policy.Holds(problems) {
		return nil
	}
	_, err := fmt.Fprintln(p.out, good)
	return err
}

// people are those whom the server knows and has not disabled.
func (p *program) people(ctx context.Context) ([]string, error) {
	c, err := p.client()
	if err != nil {
		return nil, err
	}
	r, err := c.ListPeople(ctx, &api.ListPeopleRequest{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, x := range r.People {
		if !x.Disabled {
			names = append(names, x.Name)
		}
	}
	return names, nil
}

type policyStatusCmd struct{}

// Run prints the policy in force.
func (policyStatusCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.PolicyStatus(ctx, &api.PolicyStatusRequest{})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		_, err := fmt.Fprintf(p.out, "version %s, since %s\n", r.Version, at(r.LoadedAt))
		for _, s := range slices.Concat(r.Problems, r.Warnings) {
			_, _ = fmt.Fprintln(p.out, clean(s))
		}
		return err
	})
}
