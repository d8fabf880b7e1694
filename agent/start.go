package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"curfew.internal/agent/door"
	"curfew.internal/agent/enforce"
	"curfew.internal/agent/host"
	"curfew.internal/agent/keep"
	"curfew.internal/agent/record"
	"curfew.internal/agent/uplink"
	"curfew.internal/agent/watch"
	"curfew.internal/agent/writer"
	"curfew.internal/clock"
	"curfew.internal/ledger"
	wire "curfew.internal/wire/door"
)

// Folders are where an agent lives.
type Folders struct {
	Config string // /etc/curfew
	State  string // /var/lib/curfew
	Run    string // /run/curfew
	BPF    string // /sys/fs/bpf
}

// Standard are the folders of every host.
var Standard = Folders{Config: "/etc/curfew", State: "/var/lib/curfew", Run: "/run/curfew", BPF: "/sys/fs/bpf"}

// Version of this agent.
type Version string

// self is how this program starts itself to run [Apart]: as it runs, also once
// an upgrade has put another in its place.
var self = []string{"/proc/self/exe", "look"}

// Apart runs one look at the host that an agent asks for in a process of its
// own, in words of theirs.
func Apart(ctx context.Context, in io.Reader, out io.Writer) error { return host.Apart(ctx, in, out) }

// parts are the rooms of a running agent.
type parts struct {
	Folders
	config   Config
	identity keep.Identity
	host     *host.Host
	kept     kept
	watch    *watch.Watch
	writers  *writer.Writers // nil where the kernel does not tell
	clock    clock.Clock
	log      *slog.Logger
	unwired  unwired
	units    host.Units
	trusted  trusted
	version  Version
	examined examined
}

// open makes ready what both a running agent and a sweep stand on. A sweep
// goes on beside an agent that hangs: it does without the labels, which that
// one holds.
//
// A sweep goes on without whatever only an agent needs: one file that somebody
// broke must not stop both. Without keys or labels it takes away what it can,
// as beside an agent, and leaves the rest, and the receipt, to the next agent.
func open(f Folders, sweeping, beside bool, log *slog.Logger) (*Agent, *parts, error) {
	p := &parts{Folders: f, host: &host.Host{Root: "/", Clock: clock.System{}, Self: self}, clock: clock.System{}, log: log}
	var err error
	if p.identity, err = keep.LoadIdentity(f.Config); err != nil && sweeping {
		log.Error("sweeping without the keys of this host", "err", err)
		beside = true
		p.identity, err = keep.LoadNamed(f.Config)
	}
	if err != nil {
		return nil, nil, err
	}
	if p.config, err = ReadConfig(f.Config); err != nil {
		if !sweeping {
			return nil, nil, err
		}
		log.Error("sweeping without the configuration of this host", "err", err)
		p.config = Config{}
		p.config.fill()
	}
	boot, err := host.Boot()
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(p.host.Prepare(), host.MountBPF(f.BPF)); err != nil {
		if !sweeping {
			return nil, nil, err
		}
		log.Error("sweeping on a host that cannot be made ready", "err", err)
	}
	unwritten, err := p.remember(boot, sweeping)
	if err != nil {
		return nil, nil, err
	}
	beside = beside || unwritten
	labels, err := p.labels(sweeping, beside)
	switch {
	case err == nil:
	case !sweeping || !beside && errors.Is(err, watch.ErrBusy):
		return nil, nil, errors.Join(err, p.kept.Close())
	case !errors.Is(err, watch.ErrBusy):
		log.Error("sweeping without labels", "err", err)
		beside = true
	}
	p.host.Began = p.began
	a := &Agent{
		Identity: Identity{Fleet: p.identity.Fleet, Name: p.identity.Name, Boot: boot, ReceiptKey: p.identity.ReceiptKey},
		Host:     p.host, Labels: labels, Keep: p.kept, Clock: p.clock, Log: log,
		Resync: p.config.Resync, Retry: p.config.Retry, Beside: beside, Unhold: host.EndHolding, Holds: p.watch.Guards(),
	}
	heard, err := p.kept.heard()
	if err != nil {
		log.Warn("when the control plane was heard last is not known: leases count as over until it is heard", "err", err)
	}
	a.Heard = func() time.Time { return heard }
	opened, unread := p.kept.Kept()
	if unread != nil {
		log.Warn("kept grants do not count", "err", unread)
	}
	if err := a.Init(opened, unread); err != nil {
		return nil, nil, errors.Join(err, p.close())
	}
	if p.watch != nil && p.watch.Fresh {
		a.regain()
	}
	return a, p, nil
}

// began has a process that looks for us guarded as we are. Whoever traced it
// before that would go on, and have it say what she likes.
func (p *parts) began(pid int) error {
	if !p.watch.Guards() {
		return nil
	}
	if err := p.watch.Ours(pid); err != nil {
		return err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err == nil && !strings.Contains(string(status), "\nTracerPid:\t0\n") {
		err = errors.New("somebody traces it")
	}
	return err
}

// remember opens what the agent keeps. A sweep reads what it cannot write, as
// on a disk that takes nothing any more.
func (p *parts) remember(boot string, sweeping bool) (unwritten bool, err error) {
	c := keep.Config{
		Dir: p.State, Fleet: p.identity.Fleet, Host: p.identity.Name, Boot: boot, Roots: p.identity.Roots,
		Clock: p.clock, Log: p.log, Quota: p.config.Quota, Run: p.Run, Key: p.identity.ReceiptKey,
	}
	k, err := keep.Open(c)
	if err != nil && sweeping {
		p.log.Error("sweeping without writing anything down", "err", err)
		c.Unwritten, unwritten = true, true
		k, err = keep.Open(c)
	}
	if err != nil {
		return unwritten, err
	}
	p.kept = kept{
		Keep: k, sessions: keep.Folder{Dir: filepath.Join(p.Run, "sessions")}, state: keep.Folder{Dir: p.State},
		before: keep.Folder{Dir: filepath.Join(p.Run, "before")}, looks: keep.Folder{Dir: filepath.Join(p.State, "looks")},
	}
	return unwritten, nil
}

// places are our folders and the host's that are guarded, and those where it is
// told who writes. The homes in one are the people's.
func (f Folders) places(h *host.Host) []watch.Place {
	places := []watch.Place{{Path: enforce.HomeDir, Free: true}}
	for _, name := range append([]string{f.Config, f.State, f.Run}, h.Places()...) {
		places = append(places, watch.Place{Path: name})
	}
	for _, name := range h.Witnessed() {
		places = append(places, watch.Place{Path: name, Seen: true})
	}
	return places
}

func (p *parts) close() error {
	err := p.kept.Close()
	if p.watch != nil {
		err = errors.Join(err, p.watch.Close())
	}
	if p.writers != nil {
		err = errors.Join(err, p.writers.Close())
	}
	return err
}

// marked has the kernel say who changes what lies in a folder.
func (p *parts) marked(dir string) {
	if err := p.writers.Mark(dir); err != nil {
		p.log.Warn("who changes what lies in a folder will not be known", "err", err)
	}
}

// goesOn has systemd wait another minute, if this is a start that it waits for
// (sd_notify(3)): a slow machine gets there, and what hangs does not keep it.
func goesOn() {
	_, _ = daemon.SdNotify(false, "EXTEND_TIMEOUT_USEC=60000000") // without it, systemd starts us again
}

// labels opens the kernel's. The sweep of a boot on which there were no
// sessions yet loads nothing for it: logins wait until it is over.
func (p *parts) labels(sweeping, beside bool) (Labels, error) {
	pins := filepath.Join(p.BPF, "curfew")
	if sweeping && !beside && bare(pins) && bare(p.kept.sessions.Dir) {
		return noLabels{}, nil
	}
	var err error
	c := watch.Config{PinDir: pins, Log: p.log, Clock: p.clock, Places: func() []watch.Place { return p.places(p.host) }, Progress: goesOn}
	if p.watch, err = watch.Open(c); err != nil {
		return heldLabels{}, err
	}
	return p.watch, nil
}

// bare reports whether there is nothing in a folder, or no such folder.
func bare(dir string) bool {
	entries, err := os.ReadDir(dir)
	return len(entries) == 0 && (err == nil || errors.Is(err, fs.ErrNotExist))
}

// noLabels stand in for the kernel's where nobody has one.
type noLabels struct{ heldLabels }

func (noLabels) LabelOf(int) (uint64, bool, error) { return 0, false, nil }
func (noLabels) Living() (map[uint64][]int, error) { return nil, nil }
func (noLabels) Forget([]uint64) error             { return nil }
func (noLabels) Kill(context.Context, []uint64) (map[uint64]int, map[uint64][]int, error) {
	return nil, nil, nil
}

// heldLabels stand in for labels that another agent holds: nothing can be
// given with them, and no session ended by them.
type heldLabels struct{}

func (heldLabels) Label(int, int, uint64, uint64) error { return watch.ErrBusy }
func (heldLabels) LabelOf(int) (uint64, bool, error)    { return 0, false, watch.ErrBusy }
func (heldLabels) Extend(uint64, uint64) error          { return watch.ErrBusy }
func (heldLabels) Guard(uint64, bool) error             { return watch.ErrBusy }
func (heldLabels) Living() (map[uint64][]int, error)    { return nil, watch.ErrBusy }
func (heldLabels) Forget([]uint64) error                { return watch.ErrBusy }
func (heldLabels) Kill(context.Context, []uint64) (map[uint64]int, map[uint64][]int, error) {
	return nil, nil, watch.ErrBusy
}

// turn is how long an agent waits for a sweep, or another agent, to finish.
const turn = 15 * time.Second

const lockName = "lock"

// Serve runs the agent of this host until ctx is done.
func Serve(ctx context.Context, f Folders, v Version, log *slog.Logger) error {
	waiting, cancel := context.WithTimeout(ctx, turn)
	defer cancel()
	release, err := keep.Lock(waiting, filepath.Join(f.Run, lockName))
	if err != nil {
		return err
	}
	err = serve(ctx, f, v, log)
	return errors.Join(err, release())
}

func serve(ctx context.Context, f Folders, v Version, log *slog.Logger) error {
	a, p, err := open(f, false, false, log)
	if err != nil {
		return err
	}
	p.version, p.examined.again, p.trusted.ca = v, make(chan struct{}, 1), p.identity.SSHCA
	if p.writers, err = writer.Open(p.watch, p.clock); err != nil {
		log.WarnContext(ctx, "who changes a file of ours will not be known", "err", err)
	}
	if err := writer.Renounce(); err != nil {
		return errors.Join(err, p.close())
	}
	a.Recording = func() error { return errors.Join(p.watch.Reading(), p.kept.Outbox().Writing()) }
	a.Barred = p.host.Barred
	a.Writer = func(t enforce.Thing) (writer.Writer, bool) { return p.writers.Take(p.host.File(t)) }
	terminals := &Terminals{Spool: record.Spool{Dir: filepath.Join(f.State, "terminals")}, Quota: p.config.TerminalQuota, refused: map[string]time.Duration{}}
	a.Taped = terminals.Spool.Taped
	client, err := uplink.New(uplink.Config{
		Sessions: terminals.State, Trust: func(ca string) { a.trust(p, ca) },
		Server: p.config.Server, Identity: uplink.Identity(p.identity), Host: acceptor{a, p.kept.Keep}, Rosters: acceptor{a, p.kept.Keep},
		Outbox: p.kept.Outbox(), Appended: p.kept.Outbox().Appended(), Facts: p.facts(v),
		Now: a.now, Told: a.Told, Unsure: a.Unsure, Unwired: p.unwired.list, Access: p.access, Doctor: p.examined.last, Renewed: func(der []byte) error { return keep.SaveCertificate(f.Config, der) },
		Clock: p.clock, Log: log,
	})
	if err != nil {
		return errors.Join(err, p.close())
	}
	terminals.Send = client.KeepTerminal
	ups := make(chan struct{}, 3)
	up := func() { ups <- struct{}{} }
	desk := &record.Desk{Path: filepath.Join(f.Run, "desk.sock"), Answer: a.desk(terminals), Up: up, Clock: p.clock, Log: log}
	passed := make(chan struct{}, 1)
	before := a.Heard()
	a.Heard = func() time.Time {
		if last := client.LastHeard(); !last.IsZero() {
			return last
		}
		return before
	}
	a.Passed = func() {
		client.Report()
		select {
		case passed <- struct{}{}:
		default: // told already
		}
	}
	a.Plane = client
	shells := &door.Shells{Path: filepath.Join(f.Run, "sudo.sock"), Talk: a.visit, Ours: func(uid uint32) bool { return a.personOf(uid) != "" }, Up: up, Log: log}
	server := &door.Server{Path: filepath.Join(f.Run, "door.sock"), Decide: a.answer, Up: up, Log: log, Moved: a.doorMoved}
	a.Parts = []func(context.Context) error{
		p.kept.Run, client.Run, server.Serve, shells.Serve, a.warn, a.looks, a.access, desk.Serve, a.release,
		func(ctx context.Context) error { return a.notify(ctx, ups) },
		func(ctx context.Context) error { return a.terminals(ctx, terminals) },
		func(ctx context.Context) error { return a.keepHeard(ctx, p.kept) },
		func(ctx context.Context) error {
			return p.host.Watch(ctx, p.marked, func() { p.writers.Hear(); a.Wake() }, func(err error) { a.unwatched(ctx, err) })
		},
		func(ctx context.Context) error { return host.Steps(ctx, a.Wake) },
		func(ctx context.Context) error { return a.rules(ctx, p) },
		func(ctx context.Context) error { return p.watch.Run(ctx, a.Record) }, p.watch.Refresh,
		func(ctx context.Context) error { return a.publish(ctx, p, client, passed) },
		func(ctx context.Context) error { return a.examine(ctx, p, client) },
		func(ctx context.Context) error { return a.elevation(ctx, p) },
	}
	a.append(ledger.Entry{Kind: ledger.Agent, At: p.clock.Now().Wall, Text: "agent " + string(v) + " started, mode " + p.watch.Mode()})
	if p.watch.Fresh {
		a.append(ledger.Entry{Kind: ledger.Gap, At: p.clock.Now().Wall, Text: "what ran before the agent started was not watched"})
	}
	err = a.Run(ctx)
	a.append(ledger.Entry{Kind: ledger.Agent, At: p.clock.Now().Wall, Text: "agent stopped"})
	return errors.Join(err, p.close())
}

// Sweep takes away what has ended, once, without control plane or daemon. An
// agent that answers does this all the time; beside one that hangs, the sweep
// goes on.
func Sweep(ctx context.Context, f Folders, log *slog.Logger) error {
	// First of all what the kernel would have ended, if it could.
	if err := EndDue(ctx, f); err != nil {
		log.WarnContext(ctx, "what is over was not ended at once", "err", err)
	}
	moment, done := context.WithTimeout(ctx, turn/3)
	defer done()
	release, err := keep.Lock(moment, filepath.Join(f.Run, lockName))
	beside := err != nil
	if beside {
		release = func() error { return nil }
		asked, cancel := context.WithTimeout(ctx, turn/3)
		defer cancel()
		if door.Answers(asked, filepath.Join(f.Run, "door.sock")) {
			return nil
		}
		log.WarnContext(ctx, "the agent holds this host and does not answer: sweeping beside it")
	}
	a, p, err := open(f, true, beside, log)
	if err != nil {
		return errors.Join(err, release())
	}
	_, err = a.Pass(ctx, false)
	closed := p.close()
	if a.Beside && errors.Is(closed, keep.ErrHeld) {
		closed = nil // the agent that hangs has the record; what was removed shows on the host
	}
	return errors.Join(err, closed, release())
}

// EndDue ends what runs and is over, by what the kernel keeps of each session.
func EndDue(ctx context.Context, f Folders) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := watch.EndDue(ctx, filepath.Join(f.BPF, "curfew"), clock.System{})
	return err
}

// acceptor is what the uplink hands grant sets to.
type acceptor struct {
	*Agent
	keep *keep.Keep
}

func (c acceptor) Versions() (revision, keyring uint64) { return c.keep.Versions() }

// Roster implements [uplink.Rosters].
func (c acceptor) Roster() uint64 { return c.keep.Roster() }

// TakeRosters implements [uplink.Rosters]. Whose keys count is no small thing:
// each change of it, and each that is refused, is recorded.
func (c acceptor) TakeRosters(ctx context.Context, envelopes [][]byte) error {
	was := c.keep.Roster()
	err := c.keep.TakeRosters(envelopes)
	if is := c.keep.Roster(); is != was {
		c.Log.InfoContext(ctx, "roster of people's keys is held", "version", is, "before", was)
		c.append(ledger.Entry{Kind: ledger.Agent, At: c.Clock.Now().Wall, Text: fmt.Sprintf("roster %d of people's keys is held, in place of %d", is, was)})
	}
	if err != nil && c.news("roster", err.Error()) {
		c.Log.WarnContext(ctx, "roster refused", "err", err)
		c.append(ledger.Entry{Kind: ledger.SetRefused, At: c.Clock.Now().Wall, Text: err.Error()})
	}
	return err
}

func (p *parts) facts(v Version) func() uplink.Facts {
	return func() uplink.Facts {
		keys, err := p.host.SSHHostKeys()
		if err != nil {
			p.log.Warn("ssh host keys not read", "err", err)
		}
		boot, _ := host.Boot()
		addresses := p.config.Addresses
		if len(addresses) == 0 {
			addresses = []string{p.identity.Name}
		}
		return uplink.Facts{AgentVersion: string(v), Boot: boot, Mode: p.watch.Mode(), SSHHostKeys: keys, Addresses: addresses}
	}
}

// doorMoved records that somebody took the door away: until it was there
// again, no managed person could log in.
func (a *Agent) doorMoved() {
	a.append(ledger.Entry{Kind: ledger.Drift, At: a.Clock.Now().Wall, Text: "the door's socket was changed or removed by somebody; it was put right"})
}

// answer puts the door's question to the agent.
func (a *Agent) answer(ctx context.Context, q wire.Question, who door.Caller) wire.Reply {
	w := a.Knock(ctx, Knock{
		Open: q.Kind == wire.Open, Close: q.Kind == wire.Close,
		Service: q.Service, User: q.User, RUser: q.RUser, TTY: q.TTY, From: q.RHost, PID: who.PID, FD: who.FD, Gone: who.Gone,
	})
	r := wire.Reply{Message: w.Message}
	switch {
	case w.Allow:
		r.Verdict = wire.Allow
	case w.Stranger:
		r.Verdict = wire.Stranger
	}
	return r
}

// stuck is how long a pass may take before systemd should start us anew.
const stuck = 30 * time.Second

// notify tells systemd that we are ready, once a pass was made and as many
// sockets are up as ups can hold, and alive as long as the loop is.
func (a *Agent) notify(ctx context.Context, ups <-chan struct{}) error {
	ready := a.ready
	for left := cap(ups); left > 0 || ready != nil; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ready:
			ready = nil
		case <-ups:
			left--
		}
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	for {
		if since := time.Duration(a.busy.Load()); since == 0 || a.Clock.Now().Boot-since < stuck {
			if _, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog); err != nil {
				return fmt.Errorf("tell systemd: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.Clock.After(5 * time.Second):
		}
	}
}
