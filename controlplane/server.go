// Package controlplane wires the rooms of the control plane together: it
// opens what they share, starts them and stops them.
//
// It decides nothing itself. What it waits for it ends: when [Server.Run]
// returns, nothing that it started is left.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"curfew.internal/clock"
	"curfew.internal/controlplane/api"
	"curfew.internal/controlplane/archive"
	"curfew.internal/controlplane/cosign"
	"curfew.internal/controlplane/fleet"
	"curfew.internal/controlplane/forward"
	"curfew.internal/controlplane/gate"
	"curfew.internal/controlplane/identity"
	"curfew.internal/controlplane/notify"
	"curfew.internal/controlplane/sign"
	"curfew.internal/controlplane/tiles"
)

// Bounds of the HTTP servers.
const (
	headWithin = 10 * time.Second
	bodyWithin = 30 * time.Second
	idleFor    = 2 * time.Minute
	stopWithin = 10 * time.Second
	maxConns   = 4096
	// Hosts that arrive at once share the processors: those whose turn it is are
	// to be done in a few seconds, also where others are at work. The rest
	// waits, as long as a fleet of 10,000 takes.
	maxArriving = 8192
	arriveTurns = 256
	// A join takes seconds.
	strangerFor = time.Minute
)

// endEvery is how often the server looks for what time has ended. It only
// keeps the books: hosts end grants by themselves.
const endEvery = time.Second

// Options are what a server needs besides its configuration.
type Options struct {
	Clock   clock.Clock
	Log     *slog.Logger
	Version string
}

// A Server is a control plane whose database is open and whose addresses are
// taken.
type Server struct {
	*plane
	log     *slog.Logger
	version string
	rules   *rules
	book    *book
	cosign  *cosign.Cosigner
	fleet   *fleet.Server
	api     *api.Server
	forward *forward.Forwarder
	notify  *notify.Notifier

	terminals *terminals
	doubt     doubt // of what retains

	people, agents, ops, web net.Listener // web: nil without pages
	stop                     chan struct{}
}

// Open opens the fleet and takes the addresses.
func Open(ctx context.Context, c Config, o Options) (*Server, error) {
	p, err := open(ctx, c, o.Clock)
	if err != nil {
		return nil, err
	}
	s := &Server{plane: p, log: o.Log, version: o.Version, stop: make(chan struct{})}
	if c.OIDC != nil {
		if p.desk.Provider, err = identity.NewProvider(*c.OIDC, c.Web.Origin, o.Clock); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if s.book, err = openBook(ctx, c.keys(), c.Fleet, p.store); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if s.cosign, err = cosign.New(c.Witnesses, s.book, p.store, o.Clock, o.Log); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if s.forward, err = forward.New(c.Fleet, c.Forward, p.store, o.Clock, o.Log); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if s.notify, err = notify.New(pages(c), c.Notify, p.store, o.Clock, o.Log); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.rules = newRules(c, p.store, o.Clock, o.Log)
	if c.SCIM != nil {
		s.rules.kept = p.store.Directory
	}
	s.rules.onCall.Ask(ctx)
	s.rules.load(ctx)
	p.desk.Known = s.rules.names
	s.terminals = &terminals{
		Store: p.store, Folder: archive.Folder{Dir: c.terminals()}, now: func() time.Time { return o.Clock.Now().Wall },
		changed: func(host string) { s.fleet.Changed(host) }, watched: map[string]map[uint64]int{}, quota: c.TerminalQuota,
	}
	s.fleet = fleet.New(fleet.Config{
		CA: p.ca, Store: p.store, Terminals: s.terminals, Names: names(c.AgentsURL), Clock: o.Clock, Log: o.Log, Version: o.Version,
		SSHCA: func() string { return p.keys.Load().SSHCA() },
	})
	p.store.OnSets(func(hosts []string) { s.fleet.Changed(hosts...) })
	s.api = &api.Server{
		Fleet: c.Fleet, Pages: pages(c), Store: p.store, Desk: p.desk, Rules: s.rules, Codes: p.codes, Ledger: witnessed{s.book, s.cosign}, Terminals: s.terminals, Connected: s.fleet.Connected,
		Authority: func() api.Authority { return p.keys.Load() }, Clock: o.Clock, Log: o.Log, Stop: s.stop,
	}
	s.fleet.Shell = api.Shell{Server: s.api}
	s.notify.Awaited = s.api.Awaited
	if err := s.listen(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

var _ api.Authority = (*sign.Authority)(nil)

// pages is where people's pages are; empty, if there are none.
func pages(c Config) string {
	if c.Web == nil {
		return ""
	}
	return c.Web.Origin
}

// names are those that a certificate for the URL has to have: loopback is
// for whoever asks on this machine.
func names(url string) []string {
	if h := hostOf(url); h != "localhost" && h != "127.0.0.1" {
		return []string{h, "localhost", "127.0.0.1"}
	}
	return []string{"localhost", "127.0.0.1"}
}

func (s *Server) listen(ctx context.Context) error {
	var lc net.ListenConfig
	all := map[*net.Listener]string{&s.people: s.config.Listen, &s.agents: s.config.Agents, &s.ops: s.config.Ops}
	if s.config.Web != nil {
		all[&s.web] = s.config.Web.Listen
	}
	for to, addr := range all {
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		switch to {
		case &s.agents:
			*to = &gate.Listener{Listener: l, Strangers: maxArriving, Turns: gate.Turns{Most: arriveTurns}, Stay: strangerFor, Clock: s.clock}
		case &s.ops:
			*to = netutil.LimitListener(l, maxConns)
		default:
			*to = &gate.Listener{Listener: l, Strangers: maxConns, Clock: s.clock}
		}
	}
	return nil
}

// Close gives back what Open took; for a server that was never run.
func (s *Server) Close() error {
	errs := []error{s.close()}
	for _, l := range []net.Listener{s.people, s.agents, s.ops, s.web} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// Addresses are where the people's API, the hosts' server and the operator's
// pages are.
func (s *Server) Addresses() (people, agents, ops string) {
	return s.people.Addr().String(), s.agents.Addr().String(), s.ops.Addr().String()
}

// Run serves until ctx is done, which is no error.
func (s *Server) Run(ctx context.Context, reload <-chan struct{}) error {
	people, err := s.peopleServer()
	if err != nil {
		return errors.Join(err, s.Close())
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.serve(ctx, people, s.people) })
	if s.web != nil {
		pages, err := s.webServer()
		if err != nil {
			return errors.Join(err, s.Close())
		}
		g.Go(func() error { return s.serve(ctx, pages, s.web) })
	}
	g.Go(func() error { return s.serve(ctx, s.opsServer(ctx), s.ops) })
	g.Go(func() error { return s.fleet.Serve(ctx, s.agents) })
	g.Go(func() error { return s.rules.watch(ctx, reload) })
	g.Go(func() error { return s.rules.onCall.Run(ctx) })
	g.Go(func() error { return s.end(ctx) })
	g.Go(func() error { return s.forward.Run(ctx) })
	g.Go(func() error { return s.cosign.Run(ctx) })
	g.Go(func() error { return s.retain(ctx) })
	g.Go(func() error { return s.notify.Run(ctx) })
	g.Go(func() error { return s.follow(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		close(s.stop)
		return nil
	})
	if s.web != nil {
		s.log.InfoContext(ctx, "pages are up", "origin", s.config.Web.Origin, "web", s.web.Addr().String())
	}
	s.log.InfoContext(ctx, "control plane is up", "fleet", s.config.Fleet, "version", s.version,
		"people", s.people.Addr().String(), "agents", s.agents.Addr().String(), "ops", s.ops.Addr().String())
	err = g.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	if err == nil {
		err = s.last(context.WithoutCancel(ctx))
	}
	s.log.InfoContext(context.WithoutCancel(ctx), "control plane is down", "fleet", s.config.Fleet)
	return errors.Join(err, s.close())
}

// lastWithin is how long a database may take for the last checkpoint.
const lastWithin = 5 * time.Second

// last keeps how the log stands at the end: a database that is set back before
// the next start shows, whatever came in the last moments.
func (s *Server) last(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lastWithin)
	defer cancel()
	_, err := s.checkpoint(ctx, "")
	return err
}

// followAgain is how long a server waits before it tries again to hear the
// others. Until then streams look at every heartbeat.
const followAgain = 2 * time.Second

// follow hears what other servers change.
func (s *Server) follow(ctx context.Context) error {
	for {
		err := s.store.Follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		s.log.WarnContext(ctx, "does not hear the other servers: what they change is seen later", "cause", err)
		select {
		case <-ctx.Done():
			return nil
		case <-s.clock.After(followAgain):
		}
	}
}

// end moves on what time moves on, and takes new keys into use.
func (s *Server) end(ctx context.Context) error {
	var policy uint64
	said := ""
	for {
		var err error
		if said, err = s.checkpoint(ctx, said); err != nil {
			return err
		}
		err = errors.Join(s.loadKeys(ctx), s.api.Due(ctx), s.api.Escalate(ctx), s.api.Alert(ctx))
		// Without a policy nobody is given anything, and nothing is taken away.
		if v := s.rules.edition(); v != policy && v != 0 {
			failed := s.api.Recheck(ctx)
			if failed == nil {
				policy = v
			}
			err = errors.Join(err, failed)
		}
		if err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "cannot end what is over: hosts end it by themselves", "cause", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.clock.After(endEvery):
		}
	}
}

// checkpoint keeps how the log stands, and tells the operator, once, if it
// cannot. A server whose database was set back under it stops: what it would
// decide on may have been decided otherwise.
func (s *Server) checkpoint(ctx context.Context, said string) (string, error) {
	_, _, err := s.book.Checkpoint(ctx)
	if err == nil || ctx.Err() != nil {
		return "", nil
	}
	if err.Error() != said {
		s.log.ErrorContext(ctx, "alert: no checkpoint can be made of the record", "cause", err)
	}
	if errors.Is(err, ErrSetBack) {
		return "", err
	}
	return err.Error(), nil
}

func (s *Server) peopleServer() (*http.Server, error) {
	t, err := s.ca.Server(names(s.config.URL)...)
	if err != nil {
		return nil, err
	}
	if err := present(t, s.config.TLSCert, s.config.TLSKey); err != nil {
		return nil, fmt.Errorf("certificate of the people's API: %w", err)
	}
	path, h := s.api.Handler()
	mux := http.NewServeMux()
	mux.Handle(path, h)
	if s.config.LogTiles {
		mux.Handle(tiles.Prefix, tiles.Handler(s.cosign, s.store, s.log))
	}
	return &http.Server{Handler: s.bounded(mux), TLSConfig: t, ReadHeaderTimeout: headWithin}, nil
}

// bounded gives a body its time, and an address its share of the calls that
// need no session.
func (s *Server) bounded(next http.Handler) http.Handler {
	share := newShares(s.clock)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if api.Open(r.URL.Path) && !share.take(r.RemoteAddr) {
			w.Header().Set("Retry-After", "5")
			http.Error(w, "too many sign-ins from this address: wait a few seconds", http.StatusTooManyRequests)
			return
		}
		rc := http.NewResponseController(w)
		if err := rc.SetReadDeadline(s.clock.Now().Wall.Add(bodyWithin)); err == nil {
			// A stream outlives its request's body.
			r.Body = &body{r.Body, func() { _ = rc.SetReadDeadline(time.Time{}) }}
		}
		next.ServeHTTP(w, r)
	})
}

// body tells when it has been read.
type body struct {
	io.ReadCloser
	read func()
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.read()
	}
	return n, err
}

// serve serves until ctx is done; then it lets what runs finish.
func (s *Server) serve(ctx context.Context, h *http.Server, l net.Listener) error {
	h.IdleTimeout, h.MaxHeaderBytes = idleFor, 1<<16
	h.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	h.BaseContext = func(net.Listener) context.Context { return context.WithoutCancel(ctx) }
	done := make(chan error, 1)
	go func() {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		done <- errors.Join(h.Shutdown(stop), h.Close())
	}()
	var err error
	if h.TLSConfig != nil {
		err = h.ServeTLS(l, "", "")
	} else {
		err = h.Serve(l)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err) // ctx ends with it, and so does the one above
	}
	return <-done
}
