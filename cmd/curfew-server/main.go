// Command curfew-server is Curfew's control plane: it takes requests, asks
// for approvals, signs grants and keeps the record.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/willabides/kongplete"

	"curfew.internal/packaging/man"
)

// Version is set when the program is built.
var Version = "devel"

type program struct {
	Init      initCmd      `cmd:"" help:"Make a new fleet: keys, CA, database, configuration and the first admin."`
	Serve     serveCmd     `cmd:"" help:"Run the control plane."`
	Invite    inviteCmd    `cmd:"" help:"Make a new sign-up code for a person who lost device or second factor, when no admin can."`
	JoinToken joinTokenCmd `cmd:"" help:"Make a code by which a host joins the fleet."`
	RotateKey rotateKeyCmd `cmd:"" help:"Make a new grant key; the old one counts beside it for a month."`
	LogKey    logKeyCmd    `cmd:"" help:"Print the public key of the log over the record, for auditors."`
	Backup    backupCmd    `cmd:"" help:"Copy the SQLite database into a file while the server runs; pg_dump copies a PostgreSQL one."`
	Restored  restoredCmd  `cmd:"" help:"End all that a restored database says stands, so that the server starts on it and hosts take what it sends."`
	Policy    policyCmd    `cmd:"" help:"Look after the policy folder."`

	Completion completionCmd `cmd:"" help:"Print what makes your shell complete these commands."`
	Version    versionCmd    `cmd:"" help:"Say which version this is."`
	Man        man.Command   `cmd:"" hidden:"" help:"Print the manual page."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var p program
	parser := kong.Must(&p, kong.Name("curfew-server"), kong.UsageOnError(), kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Description("The control plane of Curfew. `curfew-server init` makes a fleet, `curfew-server serve` runs it."))
	kongplete.Complete(parser)
	k, err := parser.Parse(os.Args[1:])
	parser.FatalIfErrorf(err)
	if err := k.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "curfew-server:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}
