package api_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/pquerna/otp/totp"
	"google.golang.org/protobuf/types/known/durationpb"

	"curfew.internal/clock"
	capi "curfew.internal/controlplane/api"
	"curfew.internal/controlplane/identity"
	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/roster"
	"curfew.internal/controlplane/sign"
	"curfew.internal/controlplane/store"
	"curfew.internal/grant"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
	"curfew.internal/wire/signature"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fakeClock stands still until it is told to go on.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *fakeClock) Now() clock.Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	return clock.Reading{Wall: c.now}
}

func (c *fakeClock) After(time.Duration) <-chan time.Time { return time.After(10 * time.Millisecond) }

func (c *fakeClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// rules is a policy of one role, db-admin, for ana on db hosts.
type rules struct {
	mu        sync.Mutex
	role      grant.Role
	eligible  []string
	since     time.Time // of their eligibility
	until     time.Time // of the same; zero: no end
	approvers []string
	before    []roster.Step // of the approval, each with one approval
	needed    int
	apart     map[string][]string
	lends     policy.Lending // whether approvers may be stood in for
	from      string         // whence requests have to come; empty: from anywhere
	onCall    map[string]string
	nobody    string // why nobody is on call; nothing is allowed then
	version   string // empty: v1
}

func (r *rules) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *rules) Judge(q roster.Question, hosts []roster.Host, _ time.Time) (roster.Verdict, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q.Role != r.role.Name || !slices.Contains(r.eligible, q.Person) {
		return roster.Verdict{}, roster.Refuse(roster.Denied, "you may not ask for %s", q.Role)
	}
	if q.Duration > 2*time.Hour {
		return roster.Verdict{}, roster.Refuse(roster.Invalid, "up to 2h")
	}
	if r.from != "" && q.Source != r.from {
		return roster.Verdict{}, roster.Refuse(roster.Invalid, "%q is not %s", q.Source, r.from)
	}
	if r.nobody != "" {
		return roster.Verdict{Nobody: r.nobody}, roster.Refuse(roster.Invalid, "nobody could approve it (%s)", r.nobody)
	}
	if q.Reason == "" {
		return roster.Verdict{}, roster.Refuse(roster.Invalid, "say why (--why)")
	}
	for _, name := range q.Hosts {
		if !slices.ContainsFunc(hosts, func(h roster.Host) bool { return h.Name == name && h.Labels["tier"] == "db" }) {
			return roster.Verdict{}, roster.Refuse(roster.Invalid, "%s is not among tier=db", name)
		}
	}
	return roster.Verdict{Role: r.role, Needed: r.needed, Steps: r.steps(q.Person), Approvers: slices.Clone(r.approvers), Waits: time.Hour, Version: cmp.Or(r.version, "v1"), Apart: r.apart[q.Role], OnCall: r.onCall}, nil
}

// steps are one of all approvers, if one is needed.
func (r *rules) steps(person string) []roster.Step {
	if r.needed == 0 {
		return nil
	}
	by := slices.DeleteFunc(slices.Clone(r.approvers), func(name string) bool { return name == person })
	return append(slices.Clone(r.before), roster.Step{By: by, Count: r.needed - len(r.before)})
}

func (r *rules) MayApprove(person, requester, role string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return role == r.role.Name && person != requester && (slices.Contains(r.approvers, person) ||
		slices.ContainsFunc(r.before, func(s roster.Step) bool { return slices.Contains(slices.Concat(s.By, s.Later), person) }))
}

func (r *rules) Escalates(string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.before {
		if s.After > 0 {
			return s.After
		}
	}
	return 0
}

// policy is the same, as the real one says who stands in.
func (r *rules) policy() policy.Policy {
	r.mu.Lock()
	defer r.mu.Unlock()
	role := policy.Role{Name: r.role.Name, Approvers: slices.Clone(r.approvers), Lending: r.lends}
	for _, s := range r.before {
		role.Approvers = slices.Concat(role.Approvers, s.By, s.Later)
	}
	return policy.Policy{Roles: map[string]policy.Role{r.role.Name: role}}
}

func (r *rules) StandIns(role, requester string, all []roster.Delegation) []roster.Delegation {
	return r.policy().StandIns(role, requester, all)
}

func (r *rules) Lends(d roster.Delegation) (roles, not []string) { return r.policy().Lends(d) }

func (r *rules) Offers(person string, hosts []roster.Host, at time.Time) []roster.Offer {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.eligible, person) || at.Before(r.since) || !r.until.IsZero() && !at.Before(r.until) {
		return nil
	}
	var names []string
	for _, h := range hosts {
		if h.Labels["tier"] == "db" {
			names = append(names, h.Name)
		}
	}
	return []roster.Offer{{Role: r.role, Needed: r.needed, MaxDuration: 2 * time.Hour, Hosts: names}}
}

// Ahead is the role itself, if they are eligible for it later.
func (r *rules) Ahead(person string, hosts []roster.Host, at time.Time) []roster.Offer {
	r.mu.Lock()
	since := r.since
	r.mu.Unlock()
	if !at.Before(since) {
		return nil
	}
	all := r.Offers(person, hosts, since)
	for i := range all {
		all[i].From = since
	}
	return all
}

func (*rules) State() roster.PolicyState {
	return roster.PolicyState{Version: "v1", LoadedAt: noon, Files: map[string][]byte{"r.yaml": []byte("roles: {}\n")}}
}

// codes are bare secrets.
type codes struct{ *world }

func (c codes) Invite(ctx context.Context, person, by string) (roster.Code, error) {
	secret, expires, err := c.desk.Invite(ctx, person, by)
	return roster.Code{Text: secret, Expires: expires}, err
}

func (c codes) InviteBeside(ctx context.Context, person string) (roster.Code, error) {
	secret, expires, err := c.desk.InviteBeside(ctx, person)
	return roster.Code{Text: secret, Expires: expires}, err
}

func (c codes) Join(ctx context.Context, host string, labels map[string]string, by string) (string, time.Time, error) {
	secret := rand.Text()
	k := roster.JoinToken{Hash: sha256.Sum256([]byte(secret)), Host: host, Labels: labels, Expires: noon.Add(24 * time.Hour), By: by}
	return secret, k.Expires, c.store.PutJoinToken(ctx, k, noon)
}

// book is the log, which keeps no checkpoint.
type book struct {
	*world
	*sign.Log
}

func (b book) Checkpoint(ctx context.Context) (ledger.Checkpoint, []byte, error) {
	now, err := b.store.Tree(ctx)
	if err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	note, err := b.Log.Checkpoint(now)
	return ledger.Checkpoint{Fleet: "lab", Tree: now}, note, err
}

func (b book) Cosigned(ctx context.Context) (ledger.Checkpoint, []byte, error) {
	return b.Checkpoint(ctx)
}

func (book) Witnesses(context.Context) ([]roster.Witness, error) { return nil, nil }

// world is a control plane with two db hosts and a web host, and ana who may
// ask, ben and cy who may approve, eve who may nothing, and ada the admin.
type world struct {
	clock     *fakeClock
	store     *store.Store
	desk      *identity.Desk
	authority *sign.Authority
	rules     *rules
	url       string
	dir       string // of keys and database
	log       *bytes.Buffer
	server    *capi.Server
	hostKey   ed25519.PrivateKey

	ana, ben, cy, eve, ada *person
}

// person is somebody signed in.
type person struct {
	apiconnect.CurfewClient
	w       *world
	name    string
	secret  string
	key     ed25519.PrivateKey
	session string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		clock: &fakeClock{now: noon}, log: &bytes.Buffer{}, hostKey: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{5}, 32)),
		rules: &rules{
			role:     grant.Role{Name: "db-admin", RunAs: []string{"root"}, Commands: []grant.Command{{Path: "/bin/systemctl", Args: []string{"restart", "cron"}}}},
			eligible: []string{"ana", "cy"}, approvers: []string{"ben", "cy"}, needed: 1,
		},
	}
	dir := t.TempDir()
	w.dir = dir
	ring, err := sign.Init(filepath.Join(dir, "keys"), filepath.Join(dir, "root.key"), "lab", noon)
	must(t, err)
	w.authority, err = sign.Load(filepath.Join(dir, "keys"), "lab", ring)
	must(t, err)
	w.store, err = store.Open(t.Context(), filepath.Join(dir, "db"), "lab")
	must(t, err)
	t.Cleanup(func() { _ = w.store.Close() })
	w.store.Use(w.authority)
	must(t, w.store.PutKeyring(t.Context(), 1, ring, roster.Act{By: "root", At: noon}))
	must(t, identity.MakeBoxKey(filepath.Join(dir, "box")))
	box, err := identity.LoadBox(filepath.Join(dir, "box"))
	must(t, err)
	must(t, sign.MakeLog(filepath.Join(dir, "keys")))
	log, err := sign.LoadLog(filepath.Join(dir, "keys"), "lab")
	must(t, err)
	w.desk = &identity.Desk{Store: w.store, Clock: w.clock, Fleet: "lab", Box: box}
	w.server = &capi.Server{
		Fleet: "lab", Store: w.store, Desk: w.desk, Rules: w.rules, Authority: func() capi.Authority { return w.authority },
		Codes: codes{w}, Ledger: book{w, log}, Connected: func(string) bool { return true }, Clock: w.clock, Log: slog.New(slog.NewTextHandler(w.log, nil)),
	}
	_, h := w.server.Handler()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	w.url = s.URL
	w.addHost(t, "db1", "db")
	w.addHost(t, "db2", "db")
	w.addHost(t, "web1", "web")
	for name, to := range map[string]**person{"ana": &w.ana, "ben": &w.ben, "cy": &w.cy, "eve": &w.eve, "ada": &w.ada} {
		_, err := w.store.AddPerson(t.Context(), roster.Person{Name: name, FullName: strings.ToUpper(name), Admin: name == "ada"}, roster.Act{By: "root", At: noon})
		must(t, err)
		*to = w.enrol(t, name)
	}
	w.clock.pass(time.Minute) // the codes of the enrolments are used up
	return w
}

func (w *world) addHost(t *testing.T, name, tier string) {
	t.Helper()
	secret, _, err := codes{w}.Join(t.Context(), "", map[string]string{"tier": tier}, "test")
	must(t, err)
	_, err = w.store.UseJoinToken(t.Context(), sha256.Sum256([]byte(secret)), roster.Host{
		Name: name, ReceiptKey: w.hostKey.Public().(ed25519.PublicKey), Identity: "id-" + name, Addresses: []string{name + ":22"}, SSHHostKeys: []string{"ssh-ed25519 AAAA"},
	}, noon)
	must(t, err)
}

func (w *world) anonymous() apiconnect.CurfewClient {
	return apiconnect.NewCurfewClient(http.DefaultClient, w.url)
}

func (w *world) enrol(t *testing.T, name string) *person {
	t.Helper()
	invite, _, err := w.desk.Invite(t.Context(), name, "root")
	must(t, err)
	p := &person{w: w, name: name}
	_, p.key, err = ed25519.GenerateKey(rand.Reader)
	must(t, err)
	public := p.key.Public().(ed25519.PublicKey)
	e, err := w.anonymous().Enroll(t.Context(), &api.EnrollRequest{Secret: invite, DeviceKey: public})
	must(t, err)
	u, err := url.Parse(e.OtpauthUri)
	must(t, err)
	p.secret = u.Query().Get("secret")
	s, err := w.anonymous().ConfirmEnroll(t.Context(), &api.ConfirmEnrollRequest{Secret: invite, DeviceKey: public, Code: p.code(t), DeviceName: "laptop"})
	must(t, err)
	if s.Person != name || s.Fleet != "lab" {
		t.Fatalf("session: %v", s)
	}
	p.session = s.Session
	p.CurfewClient = apiconnect.NewCurfewClient(&http.Client{Transport: signature.Transport{
		Base: http.DefaultTransport, Session: s.Session, Key: p.key, Now: func() time.Time { return w.clock.Now().Wall },
	}}, w.url)
	return p
}

// code is the person's present code.
func (p *person) code(t *testing.T) string {
	t.Helper()
	c, err := totp.GenerateCode(p.secret, p.w.clock.Now().Wall)
	must(t, err)
	return c
}

// fresh is a code that was not used yet.
func (p *person) fresh(t *testing.T) string {
	t.Helper()
	p.w.clock.pass(30 * time.Second)
	return p.code(t)
}

// question is what ana asks for, unless it is altered.
func question(t *testing.T, p *person, alter func(*api.CreateRequestRequest)) *api.CreateRequestRequest {
	t.Helper()
	m := &api.CreateRequestRequest{
		Role: "db-admin", Hosts: []string{"db1"}, Duration: durationpb.New(time.Hour), Reason: "disk full", Ticket: "INC-4121", Code: p.fresh(t),
	}
	alter(m)
	return m
}

func same(*api.CreateRequestRequest) {}

func (w *world) ask(t *testing.T) *api.Request {
	t.Helper()
	r, err := w.ana.CreateRequest(t.Context(), question(t, w.ana, same))
	must(t, err)
	return r
}

func (w *world) issued(t *testing.T) *api.Request {
	t.Helper()
	r := w.ask(t)
	r, err := w.ben.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	must(t, err)
	return r
}

// held is what the host would make of its state.
func (w *world) held(t *testing.T, host string) grant.Opened {
	t.Helper()
	st, err := w.store.State(t.Context(), host)
	must(t, err)
	ring, err := grant.OpenKeyring(st.Keyring, "lab", []ed25519.PublicKey{w.authority.Root()})
	must(t, err)
	o, err := grant.Reader{Fleet: "lab", Host: host, Ring: ring}.Open(st.Set, w.clock.Now().Wall)
	must(t, err)
	if len(o.Refused) > 0 {
		t.Fatal(o.Refused)
	}
	return o
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused checks that the call was refused in the way, in words that hold the
// text.
func refused(t *testing.T, err error, code connect.Code, text string) {
	t.Helper()
	c := (*connect.Error)(nil)
	if !errors.As(err, &c) || c.Code() != code || !strings.Contains(c.Message(), text) {
		t.Errorf("got %v, want %v: …%s…", err, code, text)
	}
}
