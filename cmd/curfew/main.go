// Curfew is people's command line: ask for a role, approve, log in, look at
// what was done. It keeps a key and a session on this computer and no
// privilege.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/willabides/kongplete"

	"curfew.internal/clock"
)

// Version is set by the linker.
var Version = "dev"

// Exit codes, as `curfew --help` lists them.
const (
	exitError    = 1
	exitUsage    = 2
	exitRefused  = 3
	exitSignIn   = 4
	exitNotGiven = 5
)

const description = `Ask for privilege on hosts, for a time, with a second person's word.

  curfew login CODE                     once, with the code an admin gave you
  curfew roles                          what you may ask for
  curfew request ROLE --on HOST --for 2h --why REASON
  curfew ssh HOST                       when it was approved
  curfew requests --to-approve          what waits for your word

Codes of your second factor are asked for at the terminal; without one, they
are read from the first line of standard input, or from $CURFEW_CODE.

Exit codes: 0 done, 1 error, 2 usage, 3 refused, 4 sign in first,
5 the request was denied, withdrawn or not approved in time.`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c commands
	parser := kong.Must(&c, kong.Name("curfew"), kong.Description(description),
		kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Vars{"version": Version}, kong.ExplicitGroups(groups))
	kongplete.Complete(parser)
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(ours(signed(args)))
	if err != nil {
		parser.Errorf("%s", err)
		os.Exit(exitUsage) //nolint:gocritic // nothing deferred matters here
	}
	if !c.prints(k.Command()) {
		parser.Errorf("--output %s is for audit search and audit tail", c.Output)
		os.Exit(exitUsage)
	}
	p := &program{globals: c.globals, clock: clock.System{}, out: os.Stdout, err: os.Stderr, in: os.Stdin}
	k.BindTo(ctx, (*context.Context)(nil))
	if err := k.Run(p); err != nil {
		fmt.Fprintln(os.Stderr, "curfew: "+message(err))
		stop()
		os.Exit(code(err))
	}
}

// exit is an error that asks for an exit code of its own.
type exit struct {
	code int
	error
}

func (e exit) Unwrap() error { return e.error }

func code(err error) int {
	var e exit
	if errors.As(err, &e) {
		return e.code
	}
	return codeOf(err)
}
