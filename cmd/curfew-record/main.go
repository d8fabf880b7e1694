// Curfew-record records the terminals of people under a grant. Systemd starts
// it, and it starts itself anew for each terminal.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"curfew.internal/agent/record"
	"curfew.internal/clock"
)

// Version is set by the linker.
var Version = "dev"

const (
	socket = "/run/curfew/record.sock"
	desk   = "/run/curfew/desk.sock"
	spool  = "/var/lib/curfew/terminals"
)

const usage = `curfew-record run        answer logins; systemd starts this
curfew-record version    print the version`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "curfew-record: "+err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	switch {
	case len(args) == 1 && args[0] == "run":
		self, err := os.Executable()
		if err != nil {
			return err
		}
		s := &record.Server{Path: socket, Desk: desk, Spool: spool, Program: []string{self, "terminal"}, Clock: clock.System{}, Log: log}
		return s.Serve(ctx, func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyReady) })
	case len(args) == 2 && args[0] == "terminal":
		return record.Record(ctx, args[1], clock.System{}, log)
	case len(args) == 1 && args[0] == "version":
		_, err := fmt.Println("curfew-record " + Version)
		return err
	}
	return errors.New("not so:\n" + usage)
}
