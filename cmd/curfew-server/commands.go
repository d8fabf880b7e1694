package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"curfew.internal/clock"
	"curfew.internal/completion"
	"curfew.internal/controlplane"
)

// configured is what every command on a fleet that exists needs.
type configured struct {
	Config string `help:"The configuration file." default:"/etc/curfew-server/server.yaml" type:"path"`
}

func (c configured) read() (controlplane.Config, error) { return controlplane.ReadConfig(c.Config) }

type initCmd struct {
	configured
	Fleet     string `help:"The fleet's name. It stands in every grant and cannot be changed." required:""`
	URL       string `help:"Where people's programs will reach this server, such as https://curfew.example:7443." required:""`
	AgentsURL string `help:"Where hosts will reach it, if it is not the same name on port 7444."`
	Admin     string `help:"The first admin's name: what her account on hosts will be called." required:""`
	FullName  string `help:"The first admin's full name."`
	DataDir   string `help:"Holds the database and the keys." default:"/var/lib/curfew-server" type:"path"`
	Store     string `help:"URL of a PostgreSQL database in place of SQLite in the data folder, such as postgres://curfew@db.example/curfew?sslmode=verify-full; a password stands in a passfile=FILE, never in it."`
	PolicyDir string `help:"Holds roles and who may ask for them; an example is put there if it is empty." default:"/etc/curfew-server/policy" type:"path"`
	RootKey   string `help:"Where to write the root key, which vouches for grant keys. Take the file offline afterwards." default:"/etc/curfew-server/root.key" type:"path"`
	Listen    string `help:"Address of the people's API." default:":7443"`
	Agents    string `help:"Address for hosts." default:":7444"`
	Ops       string `help:"Address of health and metrics." default:"127.0.0.1:7445"`
	Web       string `help:"Where browsers will reach the pages, such as https://curfew.example:7446. Without it there are none." placeholder:"ORIGIN"`
	WebListen string `help:"Address of the pages." default:":7446"`
}

// Run makes a fleet.
func (c initCmd) Run(ctx context.Context) error {
	var web *controlplane.Web
	if c.Web != "" {
		web = &controlplane.Web{Origin: c.Web, Listen: c.WebListen}
	}
	made, err := controlplane.Init(ctx, controlplane.Plan{
		Config: controlplane.Config{
			Fleet: c.Fleet, URL: c.URL, AgentsURL: c.AgentsURL, Listen: c.Listen, Agents: c.Agents, Ops: c.Ops, DataDir: c.DataDir, Store: c.Store, PolicyDir: c.PolicyDir,
			Web: web,
		},
		ConfigFile: c.Config, RootKey: c.RootKey, Admin: c.Admin, FullName: c.FullName,
	}, clock.System{})
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, `Fleet %s is made. What is left to do:

1. Take %s offline, to a safe place, and keep a copy:
   whoever has it can make herself root on every host. It is needed again for
   "curfew-server rotate-key", within two years.
2. Write your policy in %s; "curfew-server policy check" reads it.
3. Start the server: curfew-server serve --config %s
4. %s signs up with this code, once, before %s:

`, c.Fleet, c.RootKey, c.PolicyDir, c.Config, c.Admin, made.Code.Expires.Format(time.RFC1123))
	if _, err = fmt.Fprintln(os.Stdout, made.Code.Text); err != nil || made.Code.Link == "" {
		return err
	}
	_, err = fmt.Fprintf(os.Stderr, "\nOr, in place of that, with a passkey in a browser: %s\n", made.Code.Link)
	return err
}

type serveCmd struct {
	configured
	Log string `help:"Form of the log: text or json." enum:"text,json" default:"text"`
}

// Help shows the configuration file.
func (serveCmd) Help() string { return controlplane.ConfigHelp }

// Run serves until it is told to stop. SIGHUP reads the policy folder again.
func (c serveCmd) Run(ctx context.Context) error {
	config, err := c.read()
	if err != nil {
		return err
	}
	var h slog.Handler = slog.NewTextHandler(os.Stderr, nil)
	if c.Log == "json" {
		h = slog.NewJSONHandler(os.Stderr, nil)
	}
	s, err := controlplane.Open(ctx, config, controlplane.Options{Clock: clock.System{}, Log: slog.New(h), Version: Version})
	if err != nil {
		return err
	}
	// It listens by now: who comes from here on waits, and is not turned away.
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return errors.Join(fmt.Errorf("tell systemd: %w", err), s.Close())
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	reload := make(chan struct{})
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
			}
			select {
			case reload <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return s.Run(ctx, reload)
}

type inviteCmd struct {
	configured
	Name string `arg:"" help:"The person, who has to be known already."`
}

// Run prints a code.
func (c inviteCmd) Run(ctx context.Context) error {
	config, err := c.read()
	if err != nil {
		return err
	}
	code, err := controlplane.Invite(ctx, config, clock.System{}, c.Name)
	if err != nil {
		return err
	}
	or := ""
	if code.Link != "" {
		or = " In place of it, in a browser, with a passkey: " + code.Link
	}
	return show(code.Text, "%s signs up anew with this code, once, before %s. Her earlier devices and factors stop counting then.%s",
		c.Name, code.Expires.Format(time.RFC1123), or)
}

type joinTokenCmd struct {
	configured
	Host  string            `help:"Only for a host of this name; needed to enrol a host again that is in the fleet."`
	Label map[string]string `help:"A label that the host will have, such as tier=db; it wins over the host's own." mapsep:"none"`
}

// Run prints a code.
func (c joinTokenCmd) Run(ctx context.Context) error {
	config, err := c.read()
	if err != nil {
		return err
	}
	by := "local"
	if u, err := user.Current(); err == nil {
		by = "local:" + u.Username
	}
	code, expires, err := controlplane.JoinToken(ctx, config, clock.System{}, controlplane.JoinFor{Host: c.Host, Labels: c.Label, By: by})
	if err != nil {
		return err
	}
	return show(code, "A host joins with this code, once, before %s.", expires.Format(time.RFC1123))
}

type rotateKeyCmd struct {
	configured
	RootKey string `help:"The root key's file." required:"" type:"existingfile"`
}

// Run makes a new grant key.
func (c rotateKeyCmd) Run(ctx context.Context) error {
	config, err := c.read()
	if err != nil {
		return err
	}
	version, err := controlplane.RotateKey(ctx, config, clock.System{}, c.RootKey)
	if err != nil {
		return err
	}
	return show(fmt.Sprint(version), "A new grant key is in use; the keyring has the version below. A running server takes it by itself. Take the root key offline again.")
}

type logKeyCmd struct{ configured }

// Run prints the key.
func (c logKeyCmd) Run() error {
	config, err := c.read()
	if err != nil {
		return err
	}
	key, err := controlplane.LogKey(config)
	if err != nil {
		return err
	}
	return show(key, "Who holds this key can check checkpoints and exports of the record with `curfew verify`, without the server.")
}

type backupCmd struct {
	configured
	File string `arg:"" type:"path" help:"The file to write; it may not be there."`
}

// Run copies the database.
func (c backupCmd) Run(ctx context.Context) error {
	config, err := c.read()
	if err != nil {
		return err
	}
	return controlplane.Backup(ctx, config, clock.System{}, c.File)
}

type restoredCmd struct {
	configured
	Why string `required:"" help:"What happened, for the record."`
}

// Run tells the record.
func (c restoredCmd) Run(ctx context.Context) error {
	config, err := c.read()
	if err != nil {
		return err
	}
	kept, err := controlplane.Restored(ctx, config, clock.System{}, c.Why)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "All requests, grants, sessions and codes that the database had are ended, and the record tells of it. The server can start again, and hosts take what it sends.")
	if kept == "" {
		return nil
	}
	return show(kept, "The newest checkpoint from before is kept in the file below: people and auditors who saw it will be alerted, and may ask for it.")
}

type completionCmd struct{ completion.Cmd }

// Run prints what the shell reads.
func (c completionCmd) Run() error { return c.Print(os.Stdout) }

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run() error {
	_, err := fmt.Fprintln(os.Stdout, Version)
	return err
}

// show explains on standard error, and prints what a script wants alone.
func show(what, format string, args ...any) error {
	_, err := fmt.Fprintf(os.Stderr, format+"\n", args...)
	_, err2 := fmt.Fprintln(os.Stdout, what)
	return errors.Join(err, err2)
}
