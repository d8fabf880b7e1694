// Curfew-agent holds a host to its grants. It runs as root and is the only
// one of our programs on a host that does.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/willabides/kongplete"

	"curfew.internal/agent"
	"curfew.internal/packaging/man"
)

// Version is set by the linker.
var Version = "dev"

const description = `Holds this host to the grants that the control plane signed.

  curfew-agent install          wire PAM, sudo and sshd of this host
  curfew-agent join < TOKEN     make this host a part of a fleet
  systemctl enable --now curfew-agent curfew-sweep.timer curfew-sweep.service

Run it as root.`

type commands struct {
	Run        runCmd        `cmd:"" help:"Hold the host to its grants until told to stop; systemd starts this."`
	Join       joinCmd       `cmd:"" help:"Make this host a part of a fleet."`
	Install    installCmd    `cmd:"" help:"Wire PAM, sudo and sshd of this host. It can be repeated."`
	Uninstall  uninstallCmd  `cmd:"" help:"Take the wiring out again: every file is what it was."`
	Sweep      sweepCmd      `cmd:"" help:"Take away what has ended, once, without agent or control plane."`
	Look       lookCmd       `cmd:"" hidden:"" help:"Look at file systems for an agent."`
	Sudo       sudoCmd       `cmd:"" passthrough:"" help:"Before sudo, in a person's shell: ask for the grant that is missing, and wait for it."`
	Status     statusCmd     `cmd:"" help:"Say what this host is held to, and whether all is well."`
	Doctor     doctorCmd     `cmd:"" help:"Say what is wrong with this host, and the command that mends it. Exit code: 0 fine, 1 warnings, 2 broken."`
	Completion completionCmd `cmd:"" help:"Print what makes your shell complete these commands."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
	Man        man.Command   `cmd:"" hidden:"" help:"Print the manual page."`
}

type program struct {
	folders agent.Folders
	log     *slog.Logger
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var c commands
	parser := kong.Must(&c, kong.Name("curfew-agent"), kong.Description(description), kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	kongplete.Complete(parser)
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(args)
	if err != nil {
		parser.Errorf("%s", err)
		os.Exit(2)
	}
	p := &program{folders: agent.Standard, log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	k.BindTo(ctx, (*context.Context)(nil))
	err = k.Run(p)
	stop()
	if code := exit(0); errors.As(err, &code) {
		os.Exit(int(code))
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "curfew-agent: "+err.Error())
		os.Exit(1)
	}
}
