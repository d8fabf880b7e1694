package main

import (
	"fmt"
	"os"

	"curfew.internal/clock"
	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/policy/folder"
)

type policyCmd struct {
	Check policyCheckCmd `cmd:"" help:"Check a policy folder, as the server would when it reads it."`
}

type policyCheckCmd struct {
	configured
	Dir string `arg:"" optional:"" help:"The folder; that of the configuration if it is left out." type:"path"`
}

// Run prints what is wrong with the folder.
func (c policyCheckCmd) Run() error {
	if c.Dir == "" {
		config, err := c.read()
		if err != nil {
			return err
		}
		c.Dir = config.PolicyDir
	}
	p, problems, err := folder.Read(os.DirFS(c.Dir))
	if err != nil {
		return err
	}
	problems = append(problems, p.Aged(clock.System{}.Now().Wall)...)
	for _, p := range problems {
		if _, err := fmt.Fprintln(os.Stdout, p); err != nil {
			return err
		}
	}
	if !policy.Holds(problems) {
		return fmt.Errorf("%s is no valid policy", c.Dir)
	}
	_, err = fmt.Fprintf(os.Stdout, "%s is a valid policy, version %s.\n", c.Dir, p.Version)
	return err
}
