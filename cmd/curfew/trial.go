package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/policy/folder"
	"curfew.internal/controlplane/policy/trial"
)

type policyTestCmd struct {
	Dir string `arg:"" type:"existingdir" help:"The policy folder; the tests are in its folder tests."`
}

// Help shows a test.
func (policyTestCmd) Help() string {
	return `Tests are files DIR/tests/*.yaml, which the server passes over:

  tests:
    - name: ana restarts the database     # required, as are who, role, expect
      who: ana
      role: db-admin
      host: {tier: db}                    # labels
      for: 2h
      at: 2027-01-31T14:00:00Z            # now, if it is left out
      reason: disk full
      ticket: INC-4121
      expect: allowed
      approvals: 1                        # how many it needs
      approvers: [ben, cleo]              # exactly these people
    - name: nobody is let in on web servers
      who: ana
      role: db-admin
      host: {tier: web}
      expect: refused
      because: [hosts]                    # exactly these rules: role, eligibility,
                                          # hosts, duration, until, reason, ticket, approval

What is left out is not judged. The code is 3 if a test fails.`
}

// Run tries the tests.
func (c policyTestCmd) Run(ctx context.Context, p *program) error {
	rules, err := p.policyIn(ctx, c.Dir)
	if err != nil {
		return err
	}
	files, problems, err := folder.Tests(os.DirFS(c.Dir))
	if err != nil {
		return err
	}
	tests, more := trial.Parse(files)
	if problems = append(problems, more...); !policy.Holds(problems) {
		if err := p.problems(problems, ""); err != nil {
			return err
		}
		return exit{exitRefused, fmt.Errorf("mistakes in the tests of %s: %d", c.Dir, len(problems))}
	}
	outcomes := trial.Run(rules, tests, p.clock.Now().Wall.UTC())
	failed, err := p.outcomes(outcomes)
	if err != nil || failed == 0 {
		return err
	}
	return exit{exitRefused, fmt.Errorf("tests that failed: %d of %d", failed, len(outcomes))}
}

// outcomes prints what became of tests, and counts those that failed.
func (p *program) outcomes(all []trial.Outcome) (failed int, err error) {
	for _, o := range all {
		if !o.Passed {
			failed++
		}
	}
	if p.Output == "json" {
		return failed, json.NewEncoder(p.out).Encode(map[string]any{"passed": len(all) - failed, "failed": failed, "tests": all})
	}
	for _, o := range all {
		word := "ok    "
		if !o.Passed {
			word = "FAIL  "
		}
		if _, err := fmt.Fprintf(p.out, "%s%s: %s\n", word, o.Place, line(o.Name)); err != nil {
			return failed, err
		}
		for _, w := range o.Wrong {
			if _, err := fmt.Fprintf(p.out, "        %s\n", line(w)); err != nil {
				return failed, err
			}
		}
	}
	return failed, nil
}
