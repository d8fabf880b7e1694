package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/policy/folder"
	"curfew.internal/wire/api"
)

type policyCmd struct {
	Check  policyCheckCmd  `cmd:"" help:"Check a policy folder, without a server."`
	Status policyStatusCmd `cmd:"" help:"Say which policy is in force, and what is wrong with the folder as it is now."`
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
