package api_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	capi "curfew.internal/controlplane/api"
	"curfew.internal/controlplane/identity"
	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
	"curfew.internal/wire/signature"
)

const takesEarlier = `labels: {tier: [db, web]}
roles:
  db-admin: {hosts: {tier: db}, commands: [/bin/systemctl restart cron], max_duration: 2h, approval: {by: [ben, ana]}, freshness: 10m, delegation: 7d}
  anew: {hosts: {tier: db}, commands: [/bin/systemctl restart cron], max_duration: 2h, approval: {by: [ben]}}
eligible:
  - {role: db-admin, people: [ana, cy]}
  - {role: anew, people: [ana]}
`

func rule(t *testing.T, w *world, text string) {
	t.Helper()
	p, problems := policy.Parse(map[string][]byte{"r.yaml": []byte(text)})
	if !policy.Holds(problems) {
		t.Fatal(problems)
	}
	w.server.Rules = written{p}
}

// earlier is a world in which ana has just proved herself for a request.
func earlier(t *testing.T) (*world, *api.Request) {
	t.Helper()
	w := newWorld(t)
	rule(t, w, takesEarlier)
	return w, w.ask(t)
}

// bare asks without a proof.
func bare(t *testing.T, p *person, alter func(*api.CreateRequestRequest)) (*api.Request, error) {
	t.Helper()
	m := &api.CreateRequestRequest{Role: "db-admin", Hosts: []string{"db1"}, Duration: durationpb.New(time.Hour), Reason: "the other one, too"}
	alter(m)
	return p.CreateRequest(t.Context(), m)
}

// proveAnew checks that the call was refused for want of a proof, in the way by
// which programs know that one would do.
func proveAnew(t *testing.T, err error) {
	t.Helper()
	refused(t, err, connect.CodeUnauthenticated, "prove yourself for this")
	if c := (*connect.Error)(nil); !errors.As(err, &c) || c.Meta().Get("Curfew-Needs") != "code" {
		t.Errorf("%v", err)
	}
}

func TestARequestStandsOnAnEarlierProof(t *testing.T) {
	w, first := earlier(t)
	ctx := t.Context()
	if first.Proof != nil {
		t.Errorf("the first was proved itself: %v", first.Proof)
	}
	w.clock.pass(4 * time.Minute)
	me, err := w.ana.Whoami(ctx, &api.WhoamiRequest{})
	must(t, err)
	r, err := bare(t, w.ana, same)
	must(t, err)
	for _, p := range []*api.Proof{me.Proof, r.Proof} {
		if p.GetFactor() != "totp" || p.GetFor() != "request" || !p.GetAt().AsTime().Equal(first.AskedAt.AsTime()) {
			t.Errorf("%v", p)
		}
	}
	story, err := w.ben.Timeline(ctx, &api.TimelineRequest{Grant: r.Id})
	must(t, err)
	const told = "did not prove herself anew: proved with totp 4m0s before, for an earlier request"
	if !slices.ContainsFunc(story.Moments, func(m *api.Moment) bool { return m.What == "mfa" && m.Person == "ana" && m.Text == told }) {
		t.Errorf("%v", story.Moments)
	}
	seen, err := w.ben.GetRequest(ctx, &api.GetRequestRequest{Id: r.Id})
	must(t, err)
	if seen.Proof == nil || bytes.Equal(seen.Digest, first.Digest) {
		t.Errorf("the approver is not told: %v", seen.Proof)
	}
	_, err = w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	must(t, err)
	g := w.held(t, "db1").Grants
	if len(g) != 1 || g[0].Asked.Factor != "earlier totp" || g[0].Approvals[0].Factor != "totp" {
		t.Errorf("%+v", g)
	}
}

// A request, an extension and an approval on this session count; what ana proved
// herself for otherwise does not.
func TestWhichProofsCount(t *testing.T) {
	for _, c := range []struct {
		name, counts string
		do           func(w *world) error
	}{
		{"an enrolment and its sign-in", "", func(*world) error { return nil }},
		{"a link for a browser", "", func(w *world) error {
			w.desk.Passkeys, _ = identity.NewPasskeys("lab", "https://curfew.example")
			_, err := w.ana.OpenPages(t.Context(), &api.OpenPagesRequest{Code: w.ana.fresh(t)})
			return err
		}},
		{"a delegation", "", func(w *world) error {
			_, err := w.ana.Delegate(t.Context(), &api.DelegateRequest{StandIn: "eve", Until: timestamppb.New(w.clock.Now().Wall.Add(time.Hour)), Code: w.ana.fresh(t)})
			return err
		}},
		{"a code that is wrong", "", func(w *world) error {
			_, err := w.ana.CreateRequest(t.Context(), question(t, w.ana, func(m *api.CreateRequestRequest) { m.Code = "000000" }))
			refused(t, err, connect.CodePermissionDenied, "that code is not right")
			return nil
		}},
		{"a request of another role", "request", func(w *world) error {
			_, err := w.ana.CreateRequest(t.Context(), question(t, w.ana, func(m *api.CreateRequestRequest) { m.Role = "anew" }))
			return err
		}},
		{"an extension", "extension", func(w *world) error {
			r := w.issued(t)
			_, err := w.ana.Extend(t.Context(), &api.ExtendRequest{Grant: r.Grant, Duration: durationpb.New(time.Minute), Code: w.ana.fresh(t)})
			return err
		}},
		{"an approval", "approval", func(w *world) error {
			r, err := w.cy.CreateRequest(t.Context(), question(t, w.cy, same))
			must(t, err)
			_, err = w.ana.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ana.fresh(t)})
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			rule(t, w, takesEarlier)
			must(t, c.do(w))
			r, err := bare(t, w.ana, same)
			if c.counts == "" {
				proveAnew(t, err)
				return
			}
			must(t, err)
			if r.Proof.GetFor() != c.counts {
				t.Errorf("for: %v", r.Proof)
			}
		})
	}
}

// again signs the person in a second time, on the same device.
func again(t *testing.T, p *person) *person {
	t.Helper()
	s := roster.Session{ID: "s-" + strings.ToLower(rand.Text()), Person: p.name, Device: p.key.Public().(ed25519.PublicKey), Expires: p.w.clock.Now().Wall.Add(time.Hour), Proved: p.w.clock.Now().Wall}
	must(t, p.w.store.AddSession(t.Context(), s, p.w.clock.Now().Wall))
	other := *p
	other.session = s.ID
	other.CurfewClient = apiconnect.NewCurfewClient(&http.Client{Transport: signature.Transport{
		Base: http.DefaultTransport, Session: s.ID, Key: p.key, Now: func() time.Time { return p.w.clock.Now().Wall },
	}}, p.w.url)
	return &other
}

func TestWhenAnEarlierProofDoesNotCount(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, w *world) error
	}{
		{"a role that does not say so", func(t *testing.T, w *world) error {
			t.Helper()
			_, err := bare(t, w.ana, func(m *api.CreateRequestRequest) { m.Role = "anew" })
			return err
		}},
		{"another session of the same person", func(t *testing.T, w *world) error {
			t.Helper()
			_, err := bare(t, again(t, w.ana), same)
			return err
		}},
		{"another person", func(t *testing.T, w *world) error {
			t.Helper()
			_, err := bare(t, w.cy, same)
			return err
		}},
		{"at the end of the window", func(t *testing.T, w *world) error {
			t.Helper()
			w.clock.pass(10 * time.Minute)
			_, err := bare(t, w.ana, same)
			return err
		}},
		{"what stood on it makes it no younger", func(t *testing.T, w *world) error {
			t.Helper()
			w.clock.pass(9 * time.Minute)
			_, err := bare(t, w.ana, same)
			must(t, err)
			w.clock.pass(time.Minute)
			_, err = bare(t, w.ana, same)
			return err
		}},
		{"the clock was set back behind it", func(t *testing.T, w *world) error {
			t.Helper()
			w.clock.pass(-time.Minute)
			_, err := bare(t, w.ana, same)
			return err
		}},
		{"the clock was set back after it had become too old", func(t *testing.T, w *world) error {
			t.Helper()
			w.clock.pass(20 * time.Minute)
			_, err := w.ana.Whoami(t.Context(), &api.WhoamiRequest{})
			must(t, err)
			w.clock.pass(-19 * time.Minute)
			_, err = bare(t, w.ana, same)
			return err
		}},
		{"her factors were reset", func(t *testing.T, w *world) error {
			t.Helper()
			w.ana = w.enrol(t, "ana")
			_, err := bare(t, w.ana, same)
			return err
		}},
		{"a factor came beside", func(t *testing.T, w *world) error {
			t.Helper()
			must(t, w.store.AddPasskey(t.Context(), roster.Passkey{ID: []byte{1}, Person: "ana", Name: "phone", Body: []byte{1}, AddedAt: w.clock.Now().Wall}))
			_, err := bare(t, w.ana, same)
			return err
		}},
		{"an extension", func(t *testing.T, w *world) error {
			t.Helper()
			r, err := bare(t, w.ana, same)
			must(t, err)
			r, err = w.ben.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
			must(t, err)
			_, err = w.ana.Extend(t.Context(), &api.ExtendRequest{Grant: r.Grant, Duration: durationpb.New(time.Minute)})
			return err
		}},
		{"the policy says so no more", func(t *testing.T, w *world) error {
			t.Helper()
			rule(t, w, strings.Replace(takesEarlier, ", freshness: 10m", "", 1))
			_, err := bare(t, w.ana, same)
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, _ := earlier(t)
			proveAnew(t, c.do(t, w))
			w.clock.pass(3 * time.Minute)
			r, err := w.ana.CreateRequest(t.Context(), question(t, w.ana, same))
			if err != nil || r.Proof != nil {
				t.Errorf("%v, %v", r, err)
			}
		})
	}
}

// A session that is over asks for nothing.
func TestAnEarlierProofEndsWithItsSession(t *testing.T) {
	w, _ := earlier(t)
	_, err := w.ana.Logout(t.Context(), &api.LogoutRequest{})
	must(t, err)
	_, err = bare(t, w.ana, same)
	refused(t, err, connect.CodeUnauthenticated, "the session is over")
}

// taken keeps the last call as it went over the wire.
type taken struct {
	call *http.Request
	body []byte
}

func (k *taken) RoundTrip(r *http.Request) (*http.Response, error) {
	var err error
	if k.body, err = io.ReadAll(r.Body); err != nil {
		return nil, err
	}
	k.call = r.Clone(r.Context())
	return k.send()
}

func (k *taken) send() (*http.Response, error) {
	r := k.call.Clone(k.call.Context())
	r.Body = io.NopCloser(bytes.NewReader(k.body))
	return http.DefaultTransport.RoundTrip(r)
}

// Whoever has seen a call that stands on an earlier proof cannot send it again.
func TestACallOnAnEarlierProofCountsOnce(t *testing.T) {
	w, _ := earlier(t)
	k := &taken{}
	w.ana.CurfewClient = apiconnect.NewCurfewClient(&http.Client{Transport: signature.Transport{
		Base: k, Session: w.ana.session, Key: w.ana.key, Now: func() time.Time { return w.clock.Now().Wall },
	}}, w.url)
	_, err := bare(t, w.ana, same)
	must(t, err)
	r, err := k.send()
	must(t, err)
	text, err := io.ReadAll(r.Body)
	must(t, err)
	must(t, r.Body.Close())
	if r.StatusCode != http.StatusUnauthorized {
		t.Errorf("%d: %s", r.StatusCode, text)
	}
	if l, err := w.ana.ListRequests(t.Context(), &api.ListRequestsRequest{All: true}); err != nil || len(l.Requests) != 2 {
		t.Errorf("%v, %v", l, err)
	}
}

// Approving and lending a word take a proof of their own, however young another
// is.
func TestApprovalsAreProvedAnew(t *testing.T) {
	w, _ := earlier(t)
	ctx := t.Context()
	r, err := w.cy.CreateRequest(ctx, question(t, w.cy, same))
	must(t, err)
	_, err = w.ana.CreateRequest(ctx, question(t, w.ana, same))
	must(t, err)
	_, err = w.ana.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest})
	refused(t, err, connect.CodePermissionDenied, "that code is not right")
	_, err = w.ana.Delegate(ctx, &api.DelegateRequest{StandIn: "ben"})
	if err == nil {
		t.Error("a delegation stands on an earlier proof")
	}
}

// What was asked on an earlier proof is approved only while the role takes such
// ones: a policy that was made stricter holds for what waits.
func TestAStricterPolicyHoldsForWhatWaits(t *testing.T) {
	w, _ := earlier(t)
	w.clock.pass(4 * time.Minute)
	r, err := bare(t, w.ana, same)
	must(t, err)
	for freshness, want := range map[string]string{"": "has changed since this was asked", ", freshness: 4m": "has changed since this was asked", ", freshness: 5m": ""} {
		rule(t, w, strings.Replace(takesEarlier, ", freshness: 10m", freshness, 1))
		w.clock.pass(time.Minute)
		_, err := w.ben.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: []byte("another")})
		if want == "" {
			want = "this is not the request as you were shown it"
		}
		refused(t, err, connect.CodeFailedPrecondition, want)
	}
}

// Roles tell how old a proof may be.
func TestRolesTellTheirFreshness(t *testing.T) {
	w, _ := earlier(t)
	all, err := w.ana.ListRoles(t.Context(), &api.ListRolesRequest{})
	must(t, err)
	for _, r := range all.Roles {
		if want := map[string]time.Duration{"db-admin": 10 * time.Minute}[r.Name]; r.Freshness.AsDuration() != want || (r.Freshness == nil) != (want == 0) {
			t.Errorf("%s: %v", r.Name, r.Freshness)
		}
	}
}

// from is the context of a browser's call that comes from the address.
func from(ctx context.Context, address string) context.Context {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil)
	r.RemoteAddr = address
	var with context.Context
	capi.Addressed(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { with = r.Context() })).ServeHTTP(httptest.NewRecorder(), r)
	return with
}

// In a browser a passkey counts as a code does, on the network that it was used
// on: for the next /24 it has to be touched again, and where no address is known.
func TestAPasskeyInABrowserCounts(t *testing.T) {
	s := newSigning(t)
	rule(t, s.world, takesEarlier)
	home := from(s.browser["ana"], "10.0.0.7:4711")
	m := question(t, s.ana, func(m *api.CreateRequestRequest) { m.Code = "" })
	m.Assertion = s.touch("ana", m)
	first, err := s.server.CreateRequest(home, m)
	must(t, err)
	s.clock.pass(time.Minute)
	for _, c := range []struct {
		name string
		ctx  context.Context
		not  bool
	}{
		{name: "the same address", ctx: home},
		{name: "a neighbour's", ctx: from(s.browser["ana"], "10.0.0.250:1")},
		{name: "another network", ctx: from(s.browser["ana"], "10.0.1.7:4711"), not: true},
		{name: "an address that is not known", ctx: s.browser["ana"], not: true},
		{name: "another person's browser", ctx: from(s.browser["cy"], "10.0.0.7:4711"), not: true},
	} {
		m := question(t, s.ana, func(m *api.CreateRequestRequest) { m.Code, m.Reason = "", c.name })
		r, err := s.server.CreateRequest(c.ctx, m)
		if refusal := (*roster.Refusal)(nil); c.not && (!errors.As(err, &refusal) || refusal.Kind != roster.Stale) {
			t.Errorf("%s: %v, %v", c.name, r, err)
		}
		if !c.not && (err != nil || r.Proof.GetFactor() != "passkey" || !r.Proof.At.AsTime().Equal(first.AskedAt.AsTime())) {
			t.Errorf("%s: %v, %v", c.name, r, err)
		}
	}
}

// meanwhile is the policy of somebody for whom something else happens while a
// request of hers is judged.
type meanwhile struct {
	written
	first func()
}

func (m *meanwhile) Judge(q roster.Question, hosts []roster.Host, at time.Time) (roster.Verdict, error) {
	if do := m.first; do != nil {
		m.first = nil
		do()
	}
	return m.written.Judge(q, hosts, at)
}

// A request that came before the proof does not stand on it: nobody could approve
// what was asked before it was proved.
func TestAProofThatCameMeanwhileIsNoEarlierOne(t *testing.T) {
	w, _ := earlier(t)
	w.clock.pass(time.Hour)
	rules, _ := w.server.Rules.(written)
	w.server.Rules = &meanwhile{rules, func() {
		w.clock.pass(time.Second)
		_, err := w.ana.CreateRequest(t.Context(), question(t, w.ana, same))
		must(t, err)
	}}
	r, err := bare(t, w.ana, same)
	if err == nil {
		_, err = w.ben.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
		t.Fatalf("proved %v after it was asked; its approval: %v", r.Proof.At.AsTime().Sub(r.AskedAt.AsTime()), err)
	}
	proveAnew(t, err)
	_, err = bare(t, w.ana, same)
	must(t, err)
}
