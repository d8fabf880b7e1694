package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"curfew.internal/agent"
	"curfew.internal/agent/doctor"
)

// exit ends the program with a code, and without a word: all is said.
type exit int

// Error is for whoever logs it all the same.
func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

type doctorCmd struct {
	Output string `short:"o" enum:"text,json" default:"text" help:"How to print: text or json."`
}

// blind is the exit code of a doctor that could not look.
const blind = 3

// Run prints what is wrong, and says by its exit code how bad it is.
func (d doctorCmd) Run(ctx context.Context, p *program) error {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "curfew-agent: the doctor has to look at what root alone may read: run it as root")
		return exit(blind)
	}
	r := agent.Doctor(ctx, p.folders, agent.Version(Version))
	if d.Output == "json" {
		b, err := json.Marshal(r)
		if err != nil {
			return errors.Join(err, exit(blind))
		}
		fmt.Println(string(b))
	} else {
		tell(r)
	}
	if code := r.Severity.Exit(); code > 0 {
		return exit(code)
	}
	return nil
}

func tell(r doctor.Report) {
	worst := map[string]doctor.Severity{}
	count := map[doctor.Severity]int{}
	for _, f := range r.Findings {
		fmt.Printf("%-8s %s: %s\n         mend: %s\n", f.Severity, f.Check, f.Says, f.Mend)
		worst[f.Check] = max(worst[f.Check], f.Severity)
		count[f.Severity]++
	}
	for _, c := range r.Checks {
		if worst[c] == doctor.Fine {
			fmt.Printf("%-8s %s\n", doctor.Fine, c)
		}
	}
	fmt.Printf("%s: %s; %d broken, %d warnings\n", r.Host, r.Severity, count[doctor.Broken], count[doctor.Warning])
}
