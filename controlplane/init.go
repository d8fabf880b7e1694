package controlplane

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/goccy/go-yaml"

	"curfew.internal/clock"
	"curfew.internal/controlplane/fleet"
	"curfew.internal/controlplane/identity"
	"curfew.internal/controlplane/roster"
	"curfew.internal/controlplane/sign"
	"curfew.internal/controlplane/store"
	"curfew.internal/grant"
)

//go:embed example.yaml
var examplePolicy []byte

// A Plan is what a new fleet is made of.
type Plan struct {
	Config     Config
	ConfigFile string // where the configuration is written
	RootKey    string // where the root key is written, to be taken offline
	Admin      string // the first admin
	FullName   string // the admin's
}

// Made is what came of a plan.
type Made struct {
	Code roster.Code // for the first admin
}

// console is who did what was done with curfew-server itself.
const console = "curfew-server"

// Init makes a new fleet: keys, CA, database, configuration, an example of a
// policy, and the first admin. It writes over nothing that is there.
func Init(ctx context.Context, p Plan, k clock.Clock) (Made, error) {
	c := &p.Config
	c.fill()
	if err := errors.Join(c.check(), grant.CheckPerson(p.Admin), grant.CheckText("full name", p.FullName, 100)); err != nil {
		return Made{}, err
	}
	for _, f := range []string{p.ConfigFile, p.RootKey, c.database(), c.keys()} {
		if store.IsURL(f) {
			continue // no file: the database is asked below
		}
		if _, err := os.Lstat(f); err == nil {
			return Made{}, fmt.Errorf("%s is there already: a fleet is made once, in an empty place", f)
		} else if !errors.Is(err, os.ErrNotExist) {
			return Made{}, err
		}
	}
	if err := unused(ctx, c); err != nil {
		return Made{}, err
	}
	if err := os.MkdirAll(filepath.Dir(p.RootKey), 0o750); err != nil {
		return Made{}, fmt.Errorf("make a folder for the root key: %w", err)
	}
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return Made{}, fmt.Errorf("make data folder: %w", err)
	}
	if err := makeKeys(ctx, p, k); err != nil {
		return Made{}, err
	}
	if err := writeConfig(p); err != nil {
		return Made{}, err
	}
	opened, err := open(ctx, p.Config, k)
	if err != nil {
		return Made{}, err
	}
	m := Made{}
	_, err = opened.store.AddPerson(ctx, roster.Person{Name: p.Admin, FullName: p.FullName, Admin: true}, roster.Act{By: console, At: k.Now().Wall})
	if err == nil {
		m.Code, err = opened.codes.Invite(ctx, p.Admin, console)
	}
	return m, errors.Join(err, opened.close())
}

// unused refuses a PostgreSQL database that has a fleet: its next server gets
// the keys of the first.
func unused(ctx context.Context, c *Config) error {
	if c.Store == "" {
		return nil // the file was looked for
	}
	s, err := store.Open(ctx, c.Store, c.Fleet)
	if err != nil {
		return err
	}
	version, _, err := s.Keyring(ctx)
	if err == nil && version > 0 {
		err = errors.New("the database has a fleet already: a further server of it needs the configuration and the keys folder of the first, and no init")
	}
	return errors.Join(err, s.Close())
}

func makeKeys(ctx context.Context, p Plan, k clock.Clock) error {
	c := p.Config
	keyring, err := sign.Init(c.keys(), p.RootKey, c.Fleet, k.Now().Wall)
	if err != nil {
		return err
	}
	if err := sign.MakeLog(c.keys()); err != nil {
		return err
	}
	if err := identity.MakeBoxKey(c.secrets()); err != nil {
		return err
	}
	if _, err := fleet.OpenCA(c.keys(), c.Fleet, k); err != nil {
		return err
	}
	s, err := store.Open(ctx, c.database(), c.Fleet)
	if err != nil {
		return err
	}
	return errors.Join(s.PutKeyring(ctx, 1, keyring, roster.Act{By: console, At: k.Now().Wall}), s.Close())
}

func writeConfig(p Plan) error {
	b, err := yaml.Marshal(p.Config)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if err := writeNew(p.ConfigFile, append([]byte("# Configuration of curfew-server. `curfew-server serve --help` says what may stand here.\n"), b...)); err != nil {
		return err
	}
	entries, err := os.ReadDir(p.Config.PolicyDir)
	if err == nil && len(entries) > 0 {
		return nil // the operator brought a policy
	}
	return writeNew(filepath.Join(p.Config.PolicyDir, "example.yaml"), examplePolicy)
}

func writeNew(file string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640) //nolint:gosec // the operator names it
	if err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// Invite makes a new code for a person: for one who lost her second factor or
// her device, when no admin can sign in.
func Invite(ctx context.Context, c Config, k clock.Clock, person string) (roster.Code, error) {
	p, err := open(ctx, c, k)
	if err != nil {
		return roster.Code{}, err
	}
	code, err := p.codes.Invite(ctx, person, console)
	return code, errors.Join(err, p.close())
}

// JoinFor says whom a join token is for.
type JoinFor struct {
	Host   string // empty: any name
	Labels map[string]string
	By     string
}

// JoinToken makes a code for a host.
func JoinToken(ctx context.Context, c Config, k clock.Clock, t JoinFor) (string, time.Time, error) {
	if t.Host != "" {
		if err := grant.CheckHost(t.Host); err != nil {
			return "", time.Time{}, err
		}
	}
	if err := roster.CheckLabels(t.Labels); err != nil {
		return "", time.Time{}, err
	}
	p, err := open(ctx, c, k)
	if err != nil {
		return "", time.Time{}, err
	}
	code, expires, err := p.codes.Join(ctx, t.Host, t.Labels, t.By)
	return code, expires, errors.Join(err, p.close())
}

// RotateKey makes a new grant key, which a running server takes into use by
// itself. The old one counts for a while beside it.
func RotateKey(ctx context.Context, c Config, k clock.Clock, rootKey string) (version uint64, err error) {
	p, err := open(ctx, c, k)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	ring := p.keys.Load().Keyring()
	envelope, err := sign.Rotate(c.keys(), rootKey, ring, k.Now().Wall)
	if err != nil {
		return 0, err
	}
	if err := p.store.PutKeyring(ctx, ring.Version+1, envelope, roster.Act{By: console, At: k.Now().Wall}); err != nil {
		return 0, err
	}
	return ring.Version + 1, p.loadKeys(ctx)
}

// Backup copies the database into a new file while the server runs. The keys
// are not in it.
func Backup(ctx context.Context, c Config, k clock.Clock, file string) error {
	if c.Store != "" {
		return store.ErrDump
	}
	s, err := store.Open(ctx, c.database(), c.Fleet)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator names it
	if err != nil {
		return errors.Join(fmt.Errorf("write backup: %w", err), s.Close())
	}
	// Told before, so that the copy holds it: one that was restored at once would
	// lack it otherwise.
	if err = s.Tell(ctx, roster.Act{By: console, At: k.Now().Wall}, "copied the database into a backup"); err == nil {
		err = s.Backup(ctx, file)
	}
	err = errors.Join(err, f.Close(), s.Close())
	if err != nil {
		return errors.Join(fmt.Errorf("write backup: %w", err), os.Remove(file))
	}
	return nil
}

// Restored is for a database that was set back, as when a backup was restored,
// and lets the server start on it. Nobody knows what was ended since the
// backup: all that stands ends, and the record tells of it. The newest
// checkpoint from before is kept, if it shows that something is lost: it is
// what the lost entries are known by.
func Restored(ctx context.Context, c Config, k clock.Clock, why string) (kept string, err error) {
	if err := grant.CheckText("reason", why, 500); err != nil || why == "" {
		return "", errors.Join(errors.New("say why (--why)"), err)
	}
	p, err := open(ctx, c, k)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	what, aside, err := lost(ctx, c, p.store)
	if err != nil {
		return "", err
	}
	now, err := p.store.Tree(ctx)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("the record was set back: %sgoes on after entry %d: %s", what, now.Size, why)
	if err := p.store.Restored(ctx, roster.Act{By: console, At: k.Now().Wall}, text); err != nil || aside == "" {
		return "", err
	}
	return aside, os.Rename(filepath.Join(c.keys(), checkpointFile), aside)
}

// LogKey is the public key of the log over the record, as people pass it on.
func LogKey(c Config) (string, error) {
	l, err := sign.LoadLog(c.keys(), c.Fleet)
	if errors.Is(err, sign.ErrNoLog) {
		return "", fmt.Errorf("the server makes it at its first start: %w", err)
	}
	if err != nil {
		return "", err
	}
	return l.Key().String(), nil
}
