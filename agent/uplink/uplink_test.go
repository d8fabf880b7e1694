package uplink_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/agent/doctor"
	"curfew.internal/agent/keep"
	"curfew.internal/agent/uplink"
	"curfew.internal/controlplane/roster"
	"curfew.internal/dsse"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

func TestJoin(t *testing.T) {
	w := newWorld(t)
	w.serve()
	id := w.join("db1")
	if id.Fleet != fleetName || id.Name != "db1" || id.SSHCA != "ssh-ed25519 AAAA ca\n" || len(id.Roots) != 1 {
		t.Errorf("identity: %s in %s", id.Name, id.Fleet)
	}
	c, err := x509.ParseCertificate(id.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Subject.SerialNumber; got != w.store.host("db1").Identity || got == "" {
		t.Errorf("certificate is of enrolment %q, the host of %q", got, w.store.host("db1").Identity)
	}

	dir := t.TempDir()
	if err := keep.SaveIdentity(dir, keep.Identity(id)); err != nil {
		t.Fatal(err)
	}
	got, err := keep.LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, keep.Identity(id)) {
		t.Error("identity is another once it was kept")
	}
}

func TestJoinRefused(t *testing.T) {
	w := newWorld(t)
	w.serve()
	w.join("db1")
	other := newWorld(t)
	tests := []struct {
		name string
		with func() (string, string) // secret, host
		pin  bool
		want string
	}{
		{name: "a wrong secret", with: func() (string, string) { return "guess", "db2" }, want: "does not count"},
		{name: "a token that was used", with: func() (string, string) { return "secret-of-db1", "db2" }, want: "does not count"},
		{name: "a hostile name", with: func() (string, string) { return "x", "../db1" }, want: "host"},
		{name: "another control plane's CA", with: func() (string, string) { return "x", "db2" }, pin: true, want: uplink.ErrPin.Error()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code := w.code("unused")
			secret, name := tt.with()
			code.Secret = secret
			if tt.pin {
				code.CA = other.ca.Hash()
			}
			_, err := uplink.Join(t.Context(), w.clock, code, uplink.Newcomer{Name: name})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if tt.pin && !errors.Is(err, uplink.ErrPin) {
				t.Errorf("%v is not ErrPin", err)
			}
		})
	}
}

// A host whose clock is behind is told so before its token is spent; if the
// clock lets it come so far, it joins, and the doctor speaks of the clock.
func TestJoinWithAClockThatIsBehind(t *testing.T) {
	w := newWorld(t)
	w.serve()
	w.put("db1", 1)
	code, behind := w.code("secret-of-db1"), &setClock{}
	behind.by.Add(int64(-24 * time.Hour))
	_, err := uplink.Join(t.Context(), behind, code, uplink.Newcomer{Name: "db1"})
	if err == nil || !strings.Contains(err.Error(), "timedatectl") {
		t.Errorf("got %v, want what to do", err)
	}
	behind.by.Store(int64(-7 * time.Minute)) // before the host's certificate, not before the server's
	w.clock.by.Add(int64(5 * time.Minute))
	if _, err := uplink.Join(t.Context(), behind, code, uplink.Newcomer{Name: "db1"}); err != nil {
		t.Error(err)
	}
}

// A control plane whose clock was set back a little since it made its CA vouches
// for a host from before that CA counts.
func TestJoinOfACAThatIsYoungerThanItsWord(t *testing.T) {
	w := newWorld(t)
	w.clock.by.Store(int64(-5 * time.Minute))
	w.serve()
	w.put("db1", 1)
	if _, err := uplink.Join(t.Context(), w.clock, w.code("secret-of-db1"), uplink.Newcomer{Name: "db1"}); err != nil {
		t.Error(err)
	}
}

func TestStateReachesTheHost(t *testing.T) {
	w := newWorld(t)
	w.serve()
	h := w.host(w.join("db1")).start()
	w.until("first set", func() bool { return h.revision() == 1 && w.store.host("db1").Applied == 1 })
	for r := uint64(2); r < 6; r++ {
		w.put("db1", r)
		w.until("next set", func() bool { return h.revision() == r && w.store.host("db1").Applied == r })
	}
	if got := w.store.host("db1"); got.AgentVersion != "v1" || !cmp.Equal(got.Addresses, []string{"10.0.0.1:22"}) {
		t.Errorf("host said version %q, addresses %q", got.AgentVersion, got.Addresses)
	}
	if !w.server.Connected("db1") || w.server.Connected("web1") {
		t.Error("server does not know who is connected")
	}
	h.settled.Store(true)
	h.client.Report()
	w.until("settled is told", func() bool { return w.store.host("db1").Mode == "settled" })
	was := h.client.LastHeard()
	w.until("heartbeat is heard", func() bool { return h.client.LastHeard().After(was) })
}

// roster signs a version of the roster of people's keys, of one owner.
func (w *world) roster(version uint64, by ...ed25519.PrivateKey) []byte {
	w.Helper()
	public, err := x509.MarshalPKIXPublicKey(w.key.Public())
	if err != nil {
		w.Fatal(err)
	}
	r := grant.Roster{
		Fleet: fleetName, Version: version, Expires: time.Unix(1<<33, 0).UTC(), Threshold: 1, Owners: []ed25519.PublicKey{w.key.Public().(ed25519.PublicKey)},
		Party: "curfew.example", Origins: []string{"https://curfew.example"}, Approvals: 1,
		Members: []grant.Member{{Name: "ana", Keys: []grant.Passkey{{ID: []byte("k"), Public: public}}}},
	}
	return dsse.Sign(grant.RosterType, r.Bytes(), by...).Bytes()
}

// Versions come one after the other, and to a host that was away as well; one
// that nobody signed who may is refused, and hinders no set.
func TestRosterReachesTheHost(t *testing.T) {
	w := newWorld(t)
	w.serve()
	w.store.list(w.roster(1, w.key, w.root))
	w.store.list(w.roster(2, w.key))
	h := w.host(w.join("db1")).start()
	w.until("both versions", func() bool { return h.keep.Roster() == 2 })
	w.store.list(w.roster(3, w.key))
	w.put("db1", 2)
	w.until("the third", func() bool { return h.keep.Roster() == 3 && h.revision() == 2 })
	h.stop()
	w.store.list(w.roster(4, newKey(t)))
	w.put("db1", 3)
	h.start()
	w.until("the set beside a roster that is refused", func() bool { return h.revision() == 3 })
	w.until("the refusal is told", func() bool { return strings.Contains(w.store.host("db1").Refused, "too few owners") })
	if v := h.keep.Roster(); v != 3 {
		t.Errorf("roster %d is held", v)
	}
}

// What the control plane's clock says can be old; only the answer to a question
// is known to be new.
func TestTheTimeIsAskedForAndTold(t *testing.T) {
	w := newWorld(t)
	w.serve()
	h := w.host(w.join("db1")).start()
	w.until("first set", func() bool { return w.store.host("db1").Applied == 1 })
	w.until("an answer", func() bool { return h.answers.Load() > 0 })
	h.unsure.Store(true)
	was := h.answers.Load()
	w.until("more answers", func() bool { return h.answers.Load() > was+1 })
}

// What the doctor found is told when it has looked, and again when it finds
// something else.
func TestTheDoctorsWordIsTold(t *testing.T) {
	w := newWorld(t)
	w.serve()
	h := w.host(w.join("db1")).start()
	w.until("first word", func() bool { d := w.store.host("db1"); return d.Access == "observe" && d.Examined.IsZero() })
	at := time.Unix(1000, 7).UTC()
	for _, says := range []string{"systemd is not\nasked", "the disk is full"} {
		h.report.Store(&doctor.Report{At: at, Findings: []doctor.Finding{{Check: "names", Severity: doctor.Broken, Says: says, Mend: "sed"}}})
		h.client.Report()
		w.until("findings", func() bool {
			d := w.store.host("db1")
			want := []roster.Finding{{Check: "names", Severity: "broken", Says: strings.ReplaceAll(says, "\n", " "), Mend: "sed"}}
			return d.Examined.Equal(at) && cmp.Equal(d.Findings, want)
		})
	}
}

// A host gets its own set and no other, and speaks for itself alone.
func TestHostsAreApart(t *testing.T) {
	w := newWorld(t)
	w.serve()
	db, web := w.host(w.join("db1")).start(), w.host(w.join("web1")).start()
	w.put("web1", 7)
	w.until("both sets", func() bool { return db.revision() == 1 && web.revision() == 7 })
	w.until("both answers", func() bool { return w.store.host("db1").Applied == 1 && w.store.host("web1").Applied == 7 })
	if err := web.keep.Append(ledger.Entry{Kind: ledger.Exec, Host: "db1"}); err != nil {
		t.Fatal(err)
	}
	w.until("the record is kept as web1's", func() bool { return len(w.store.records("web1")) == 1 })
	if len(w.store.records("db1")) != 0 {
		t.Error("web1 spoke for db1")
	}
}

// A wake-up that was lost costs time alone.
func TestStateIsFoundWithoutWakeUp(t *testing.T) {
	w := newWorld(t)
	w.serve()
	h := w.host(w.join("db1")).start()
	w.until("first set", func() bool { return h.revision() == 1 })
	w.store.changed.Store(nil)
	w.put("db1", 2)
	w.until("next set", func() bool { return h.revision() == 2 })
}

func TestRefusedSets(t *testing.T) {
	w := newWorld(t)
	w.serve()
	h := w.host(w.join("db1")).start()
	w.put("db1", 5)
	w.until("fifth set", func() bool { return h.revision() == 5 })
	renamed := w.state("web1", 6, w.key)
	forged := w.state("db1", 6, newKey(t))
	changed := w.state("db1", 5, newKey(t))
	changed.Revision = 50 // so that the control plane sends it
	tests := []struct {
		name string
		set  roster.State
		want string
	}{
		{"an older set", w.state("db1", 4, w.key), "older"},
		{"another host's set", renamed, "another host"},
		{"a set signed by a strange key", forged, "signatures"},
		{"the same revision with other signatures", changed, "signatures"},
		{"no set", roster.State{Revision: 7, Keyring: w.state("db1", 7, w.key).Keyring}, "grant set"},
		{"no keyring", roster.State{Revision: 8, Set: w.state("db1", 8, w.key).Set}, "keyring"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.store.put("db1", tt.set)
			w.until("refusal", func() bool { return strings.Contains(w.store.host("db1").Refused, tt.want) })
			if h.revision() != 5 {
				t.Errorf("host keeps revision %d", h.revision())
			}
			if !w.server.Connected("db1") {
				t.Error("stream is gone")
			}
			was := h.client.LastHeard()
			beats := time.NewTimer(150 * time.Millisecond)
			<-beats.C
			if h.client.LastHeard() != was {
				t.Error("a lease is renewed by who sent it")
			}
			w.put("db1", 5)
			w.until("peace again", func() bool { return w.store.host("db1").Refused == "" })
		})
	}
	if !w.log.has("alert: host refused its grant set") {
		t.Error("nothing in the log")
	}
}

func TestDatabaseSetBack(t *testing.T) {
	w := newWorld(t)
	w.serve()
	h := w.host(w.join("db1")).start()
	w.put("db1", 5)
	w.until("fifth set", func() bool { return h.revision() == 5 })
	h.stop()
	w.put("db1", 3)
	h.start()
	w.until("refusal", func() bool { return strings.Contains(w.store.host("db1").Refused, "older") })
	if h.revision() != 5 || !w.log.has("alert: host keeps a newer grant set") {
		t.Errorf("host keeps %d; log:\n%s", h.revision(), w.log)
	}
}

func TestDecommissioned(t *testing.T) {
	w := newWorld(t)
	w.serve()
	h := w.host(w.join("db1")).start()
	w.until("connection", func() bool { return h.revision() == 1 })
	w.store.alter("db1", func(h *roster.Host) { h.Decommissioned = true })
	w.until("disconnected", func() bool { return !w.server.Connected("db1") && w.log.has("was decommissioned: enrol it") })
	w.put("db1", 2)
	if h.revision() != 1 {
		t.Error("host is still served")
	}
	w.store.alter("db1", func(h *roster.Host) { h.Decommissioned = false })
	w.until("connected again", func() bool { return h.revision() == 2 })
	w.store.alter("db1", func(h *roster.Host) { h.Identity = "another" })
	w.until("former self is sent away", func() bool { return !w.server.Connected("db1") && w.log.has("former self") })
	w.server.Drop("db1")
}

func TestCloneIsRefused(t *testing.T) {
	w := newWorld(t)
	w.serve()
	id := w.join("db1")
	first := w.host(id).start()
	w.until("connection", func() bool { return first.revision() == 1 })
	second := w.host(id).start()
	w.until("alert", func() bool { return w.log.has("alert: a second agent came") })
	w.put("db1", 2)
	w.until("first is served", func() bool { return first.revision() == 2 })
	if second.revision() != 0 {
		t.Error("both are served")
	}
	first.stop()
	w.until("the other is served", func() bool { return second.revision() == 2 })
}

func TestRenewal(t *testing.T) {
	w := newWorld(t)
	w.serve()
	h := w.host(w.join("db1")).start()
	w.until("connection", func() bool { return h.revision() == 1 })
	w.clock.by.Add(int64(18 * time.Hour))
	h.stop()
	h.start()
	w.until("renewal", func() bool { return h.renewed.Load() == 1 })
	w.clock.by.Add(int64(10 * time.Hour)) // the first one has run out
	w.put("db1", 2)
	w.until("served with the new one", func() bool { return h.revision() == 2 })
}

func TestExpiredCertificate(t *testing.T) {
	w := newWorld(t)
	w.serve()
	id := w.join("db1")
	w.clock.by.Add(int64(25 * time.Hour))
	h := w.host(id).start()
	w.until("a clear line", func() bool { return w.log.has("run `curfew-agent join CODE`") })
	if h.revision() != 0 {
		t.Error("served")
	}
}

// numbered appends entries that tell their number.
func numbered(t *testing.T, h *host, from, upTo int) {
	t.Helper()
	for i := from; i < upTo; i++ {
		if err := h.keep.Append(ledger.Entry{Kind: ledger.Exec, Host: h.id.Name, Session: uint64(i)}); err != nil {
			t.Fatal(err)
		}
	}
}

func wantNumbered(w *world, upTo int) {
	w.Helper()
	w.until(fmt.Sprintf("%d records", upTo), func() bool { return len(w.store.records("db1")) >= upTo })
	for i, b := range w.store.records("db1") {
		e, err := ledger.ParseEntry(b)
		if err != nil || e.Session != uint64(i) {
			w.Fatalf("record %d is %d: %v", i, e.Session, err)
		}
	}
}

func TestRecordsOnceOverRestarts(t *testing.T) {
	w := newWorld(t)
	stop := w.serve()
	h := w.host(w.join("db1")).start()
	n := 0
	for range 4 {
		numbered(t, h, n, n+50)
		stop()
		numbered(t, h, n+50, n+100)
		h.stop()
		stop = w.serve()
		h.start()
		n += 100
	}
	wantNumbered(w, n)
}

func TestRecordsWaitForTheDatabase(t *testing.T) {
	w := newWorld(t)
	w.serve()
	h := w.host(w.join("db1")).start()
	w.store.fail(errors.New("database is full"))
	numbered(t, h, 0, 20)
	w.until("trouble", func() bool { return w.log.has("cannot serve host") })
	w.store.fail(nil)
	wantNumbered(w, 20)
}

// A cutConn breaks after so many bytes, in the middle of whatever it carries.
type cutConn struct {
	net.Conn
	left *atomic.Int64
}

func (c cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	return n, c.count(n, err)
}

func (c cutConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, c.count(n, err)
}

func (c cutConn) count(n int, err error) error {
	if c.left.Add(-int64(n)) < 0 {
		return errors.Join(errors.New("cable was cut"), c.Close())
	}
	return err
}

func TestRecordsOnceOverCutConnections(t *testing.T) {
	w := newWorld(t)
	w.serve()
	h := w.host(w.join("db1"))
	dice := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	cuts := 0
	h.dial = func(ctx context.Context, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		mu.Lock()
		defer mu.Unlock()
		left := &atomic.Int64{}
		// The handshake takes some 3 kB; the later the more is let through.
		left.Store(2000 + dice.Int64N(3000) + int64(cuts)*1000)
		cuts++
		return cutConn{c, left}, err
	}
	h.start()
	for i := range 30 {
		numbered(t, h, i*20, i*20+20)
		w.put("db1", uint64(i+2))
	}
	wantNumbered(w, 600)
	w.until("last set", func() bool { return h.revision() == 31 })
	mu.Lock()
	defer mu.Unlock()
	if cuts < 3 {
		t.Errorf("only %d connections: nothing was shown", cuts)
	}
}

// An outbox that was set back, or a control plane that was, costs doubles at
// most, and is said.
func TestOutboxBeginsAnew(t *testing.T) {
	w := newWorld(t)
	w.serve()
	h := w.host(w.join("db1")).start()
	numbered(t, h, 0, 10)
	wantNumbered(w, 10)
	h.stop()
	name := "db1/" + h.keep.Outbox().Name()
	w.store.mu.Lock()
	for len(w.store.kept[name]) < 20 { // more than the host remembers
		w.store.kept[name] = append(w.store.kept[name], []byte("?"))
	}
	w.store.mu.Unlock()
	h.start()
	numbered(t, h, 10, 11)
	w.until("all under a new name", func() bool {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		return len(w.store.kept["db1/"+h.keep.Outbox().Name()]) == 12 && len(w.store.kept) == 2
	})
}
