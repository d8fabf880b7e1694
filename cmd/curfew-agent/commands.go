package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"curfew.internal/agent"
	"curfew.internal/completion"
)

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run() error {
	_, err := fmt.Println("curfew-agent " + Version)
	return err
}

type runCmd struct{}

// Run is the daemon.
func (runCmd) Run(ctx context.Context, p *program) error {
	return agent.Serve(ctx, p.folders, agent.Version(Version), p.log)
}

type sweepCmd struct {
	Due bool `help:"Only end what runs and is over, by what the kernel keeps of each session. A grant's timer does this first."`
}

// Run makes one pass that only takes away.
func (s sweepCmd) Run(ctx context.Context, p *program) error {
	if s.Due {
		return agent.EndDue(ctx, p.folders)
	}
	return agent.Sweep(ctx, p.folders, p.log)
}

type lookCmd struct{}

// Run is a part of an agent or a sweep.
func (lookCmd) Run(ctx context.Context) error { return agent.Apart(ctx, os.Stdin, os.Stdout) }

type joinCmd struct {
	Token   string            `arg:"" optional:"" help:"The token; by default it is read from standard input, where no list of processes shows it."`
	Name    string            `placeholder:"NAME" help:"This host's name in the fleet; the first label of its host name."`
	Address []string          `placeholder:"HOST[:PORT]" help:"Where people reach this host's sshd; its name."`
	Label   map[string]string `placeholder:"KEY=VALUE;..." help:"Labels that the token has to have; with others, the host does not join."`
	Labels  string            `type:"existingfile" placeholder:"FILE" help:"A file of such labels, one KEY=VALUE a line."`
}

// unpacked is there until dpkg has configured the package.
const unpacked = "/usr/libexec/curfew-agent/before"

// configured refuses to make anything of a host whose package dpkg would take
// away without asking it to leave (docs/decisions/0190-unpacked.md).
func configured() error {
	if _, err := os.Stat(unpacked); err == nil {
		return errors.New("this package is unpacked, and not configured yet: run `dpkg --configure -a` first")
	}
	return nil
}

// Run joins a fleet.
func (j joinCmd) Run(ctx context.Context, p *program) error {
	if err := configured(); err != nil {
		return err
	}
	token := j.Token
	if token == "" {
		line, err := bufio.NewReader(io.LimitReader(os.Stdin, 8192)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		token = line
	}
	labels, err := expected(j.Label, j.Labels)
	if err != nil {
		return err
	}
	if j.Name == "" {
		name, err := os.Hostname()
		if err != nil {
			return err
		}
		j.Name, _, _ = strings.Cut(strings.ToLower(name), ".")
	}
	fleet, err := agent.Join(ctx, p.folders, agent.Newcomer{Token: token, Name: j.Name, Addresses: j.Address, Labels: labels})
	if err != nil {
		return err
	}
	_, err = fmt.Printf("This host is %s of %s. Next: systemctl enable --now curfew-agent curfew-sweep.timer curfew-sweep.service\n", j.Name, fleet)
	return err
}

// expected are the labels that a token has to have: those of a file, which an
// image or a tool may have put there, and those of the command line.
func expected(given map[string]string, file string) (map[string]string, error) {
	all := map[string]string{}
	if file != "" {
		b, err := os.ReadFile(file) //nolint:gosec // the administrator names it
		if err != nil {
			return nil, fmt.Errorf("read labels: %w", err)
		}
		n := 0
		for line := range strings.Lines(string(b)) {
			n++
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			key, value, ok := strings.Cut(line, "=")
			if was, twice := all[key]; !ok || twice && was != value {
				return nil, fmt.Errorf("%s:%d: write KEY=VALUE, and each key once", file, n)
			}
			all[key] = value
		}
	}
	for key, value := range given {
		if was, twice := all[key]; twice && was != value {
			return nil, fmt.Errorf("label %s is %s in %s and %s here: say one of them", key, was, file, value)
		}
		all[key] = value
	}
	return all, nil
}

type installCmd struct {
	Observe    bool   `xor:"access" help:"Record sudo and su without a live grant, and let them through. So it is at first."`
	Enforce    bool   `xor:"access" help:"Refuse sudo and su without a live grant to everybody but root and the break-glass group."`
	Breakglass string `placeholder:"GROUP" help:"The group that --enforce lets through."`
}

// Run wires the host.
func (i installCmd) Run(ctx context.Context) error {
	if err := configured(); err != nil {
		return err
	}
	return agent.Install(ctx, agent.Access{Enforce: i.Enforce, Observe: i.Observe, Breakglass: i.Breakglass})
}

type uninstallCmd struct{}

// Run takes the wiring out.
func (uninstallCmd) Run(ctx context.Context) error { return agent.Uninstall(ctx) }

type statusCmd struct {
	Output string `short:"o" enum:"text,json" default:"text" help:"How to print: text or json."`
}

// old is from when on a status says nothing of the present.
const old = 15 * time.Second

// Run prints what the agent said last. It fails when something is wrong.
func (s statusCmd) Run(p *program) error {
	st, err := agent.ReadStatus(p.folders)
	if err != nil {
		return err
	}
	if s.Output == "json" {
		b, err := json.Marshal(st)
		if err != nil {
			return err
		}
		fmt.Println(string(b))
	} else {
		show(st)
	}
	switch {
	case time.Since(st.At) > old:
		return fmt.Errorf("the agent was last alive at %s: see `systemctl status curfew-agent`", st.At.Format(time.RFC3339))
	case len(st.Unwired) > 0:
		return errors.New("the wiring is not whole: run `curfew-agent install`")
	}
	return nil
}

func show(st agent.Status) {
	link := "connected to the control plane"
	switch {
	case st.Refused != "":
		link = "REFUSED: " + st.Refused
	case !st.Connected:
		link = "the control plane is away; what was granted goes on until its end"
	}
	fmt.Printf("host      %s of %s\nlink      %s\nwatching  %s: %d events told, %d lost\n", st.Host, st.Fleet, link, st.Mode, st.Sent, st.Lost)
	if st.Skipped > 0 {
		fmt.Printf("          the kernel left out %d calls of our programs, for one ran already: what they would have told or refused went by\n", st.Skipped)
	}
	for _, gap := range uncovered(st.Mode) {
		fmt.Printf("          not covered: %s\n", gap)
	}
	switch st.Access {
	case agent.Observe:
		fmt.Printf("sudo, su  only observed: %d calls without a grant would have been refused since the agent started\n", st.Barred)
	case agent.Enforce:
		fmt.Printf("sudo, su  for live grants alone: %d calls without one were refused since the agent started\n", st.Barred)
	}
	fmt.Printf("signs     receipts and seals, with key %s\n", st.Key)
	fmt.Printf("grants    revision %d, %d live\n", st.Revision, len(st.Grants))
	if st.Roster > 0 {
		fmt.Printf("roster    %d, of people's keys\n", st.Roster)
	}
	for _, g := range st.Grants {
		fmt.Printf("          %s %s as %s until %s\n", g.ID, g.Person.Name, g.Role.Name, g.NotAfter.Format("2006-01-02 15:04:05 UTC"))
	}
	for _, x := range st.Sessions {
		fmt.Printf("session   %x %s by %s under %s since %s\n", x.ID, x.Service, x.Person, x.Grant, x.Opened.Format("15:04:05 UTC"))
	}
	if st.Clock != "" {
		fmt.Printf("CLOCK     %s\n", st.Clock)
	}
	for _, u := range st.Unwired {
		fmt.Printf("UNWIRED   %s\n", u)
	}
}

// uncovered says what this mode leaves open: before the end, and what the
// kernel alone, with the agent dead, leaves undone at it.
func uncovered(mode string) []string {
	has := map[string]bool{}
	for part := range strings.SplitSeq(mode, "+") {
		has[part] = true
	}
	var gaps []string
	if !has["guard"] {
		gaps = append(gaps, "before its end, a session that is root may stop the agent and change its files, sudo's and PAM's (the kernel takes no programs that refuse)")
	}
	if !has["lsm"] && !has["fmod_ret"] {
		gaps = append(gaps, "with the agent dead, what is left of a session may open files and connect until it forks, executes or is ended (the kernel takes no programs that refuse)")
	}
	if !has["fexit"] {
		gaps = append(gaps, "renames, links, removals and datagrams without a connection are not told (the kernel takes no programs at its functions)")
	}
	if !has["timer"] {
		gaps = append(gaps, "with the agent dead, what sleeps or only computes lives until systemd starts the sweep (the kernel's timer needs Linux 6.13)")
	}
	return gaps
}

type completionCmd struct{ completion.Cmd }

// Run prints what the shell reads.
func (c completionCmd) Run(*program) error { return c.Print(os.Stdout) }
