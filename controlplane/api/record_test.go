package api_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	capi "curfew.internal/controlplane/api"
	"curfew.internal/controlplane/roster"
	"curfew.internal/dsse"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
	"curfew.internal/wire/signature"
)

func TestStrangersLearnNothing(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r := w.issued(t)
	for _, id := range []string{r.Id, r.Grant, "r-aaaaaaaaaaaaaaaa", "' OR 1=1 --", ""} {
		_, err := w.eve.GetRequest(ctx, &api.GetRequestRequest{Id: id})
		refused(t, err, connect.CodeNotFound, "no such request or grant, or it is not yours to see")
		_, err = w.eve.Timeline(ctx, &api.TimelineRequest{Grant: id})
		refused(t, err, connect.CodeNotFound, "no such request or grant, or it is not yours to see")
	}
	if l, err := w.eve.ListRequests(ctx, &api.ListRequestsRequest{All: true}); err != nil || len(l.Requests) != 0 {
		t.Errorf("%v, %v", l, err)
	}
	for host, text := range map[string]string{"db1": "no grant that stands", "nonsense": "no grant that stands"} {
		_, err := w.eve.IssueSSHCertificate(ctx, &api.IssueSSHCertificateRequest{Host: host, PublicKey: sshKey(t)})
		refused(t, err, connect.CodePermissionDenied, text)
	}
	_, err := w.eve.ListHosts(ctx, &api.ListHostsRequest{})
	refused(t, err, connect.CodePermissionDenied, "admins")
	for _, call := range []func() error{
		func() error { _, err := w.ana.AddPerson(ctx, &api.AddPersonRequest{Name: "mal"}); return err },
		func() error { _, err := w.ana.InvitePerson(ctx, &api.InvitePersonRequest{Name: "ben"}); return err },
		func() error { _, err := w.ana.DisablePerson(ctx, &api.DisablePersonRequest{Name: "ben"}); return err },
		func() error { _, err := w.ana.SetEmail(ctx, &api.SetEmailRequest{Name: "ana"}); return err },
		func() error { _, err := w.ana.ListPeople(ctx, &api.ListPeopleRequest{}); return err },
		func() error { _, err := w.ana.CreateJoinToken(ctx, &api.CreateJoinTokenRequest{}); return err },
		func() error {
			_, err := w.ana.DecommissionHost(ctx, &api.DecommissionHostRequest{Name: "db1"})
			return err
		},
		func() error { _, err := w.ana.PolicyStatus(ctx, &api.PolicyStatusRequest{}); return err },
	} {
		refused(t, call(), connect.CodePermissionDenied, "admins")
	}
}

func TestAdmins(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	for _, name := range []string{"root", "../x", "a.b", "a~", "-x", "a b", "a\nb", "аna", strings.Repeat("a", 300), ""} {
		_, err := w.ada.AddPerson(ctx, &api.AddPersonRequest{Name: name})
		refused(t, err, connect.CodeInvalidArgument, "person")
	}
	_, err := w.ada.AddPerson(ctx, &api.AddPersonRequest{Name: "ana"})
	refused(t, err, connect.CodeAlreadyExists, "not given again")
	p, err := w.ada.AddPerson(ctx, &api.AddPersonRequest{Name: "dan", FullName: "Dan D."})
	if err != nil || p.Person.Enrolled || p.Invite == "" {
		t.Errorf("%v, %v", p, err)
	}
	_, err = w.ada.DisablePerson(ctx, &api.DisablePersonRequest{Name: "ada"})
	refused(t, err, connect.CodeFailedPrecondition, "yourself")
	_, err = w.ada.DisablePerson(ctx, &api.DisablePersonRequest{Name: "nobody"})
	refused(t, err, connect.CodeNotFound, "nobody")
	_, err = w.ada.CreateJoinToken(ctx, &api.CreateJoinTokenRequest{Labels: map[string]string{"tier": "a b"}})
	refused(t, err, connect.CodeInvalidArgument, "label")
	_, err = w.ada.CreateJoinToken(ctx, &api.CreateJoinTokenRequest{Host: "../x"})
	refused(t, err, connect.CodeInvalidArgument, "host")
	if k, err := w.ada.CreateJoinToken(ctx, &api.CreateJoinTokenRequest{Host: "db9", Labels: map[string]string{"tier": "db"}}); err != nil || k.Token == "" {
		t.Errorf("%v, %v", k, err)
	}
	hosts, err := w.ada.ListHosts(ctx, &api.ListHostsRequest{})
	if err != nil || len(hosts.Hosts) != 3 || hosts.Hosts[0].Revision != 1 || !hosts.Hosts[0].Connected {
		t.Errorf("%v, %v", hosts, err)
	}
	if h, err := w.ada.DecommissionHost(ctx, &api.DecommissionHostRequest{Name: "db2"}); err != nil || !h.Decommissioned {
		t.Errorf("%v, %v", h, err)
	}
	_, err = w.ana.CreateRequest(ctx, question(t, w.ana, func(m *api.CreateRequestRequest) { m.Hosts = []string{"db2"} }))
	refused(t, err, connect.CodeInvalidArgument, "db2")
	if s, err := w.ada.PolicyStatus(ctx, &api.PolicyStatusRequest{}); err != nil || s.Version != "v1" || len(s.Files) > 0 {
		t.Errorf("%v, %v", s, err)
	}
	if s, err := w.ada.PolicyStatus(ctx, &api.PolicyStatusRequest{Files: true}); err != nil || len(s.Files["r.yaml"]) == 0 {
		t.Errorf("%v, %v", s, err)
	}
}

// Who is told where is for herself and admins to know, and for the record not.
func TestAddressesOfMail(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	for _, email := range []string{
		"ana", "ana@", "@example.com", "a b@example.com", "ana@example.com\r\nBcc: eve@example.com", "Ana <ana@example.com>", `"a,b"@example.com`, "ana@[127.0.0.1]",
		"ana@example.com,eve@example.com", "аna@example.com", strings.Repeat("a", 65) + "@example.com", "a@" + strings.Repeat("a.", 130) + "com",
	} {
		_, err := w.ada.SetEmail(ctx, &api.SetEmailRequest{Name: "ana", Email: email})
		refused(t, err, connect.CodeInvalidArgument, "mail address: write it like")
		_, err = w.ada.AddPerson(ctx, &api.AddPersonRequest{Name: "dan", Email: email})
		refused(t, err, connect.CodeInvalidArgument, "mail address: write it like")
	}
	_, err := w.ada.SetEmail(ctx, &api.SetEmailRequest{Name: "nobody", Email: "n@example.com"})
	refused(t, err, connect.CodeNotFound, "nobody")
	p, err := w.ada.SetEmail(ctx, &api.SetEmailRequest{Name: "ana", Email: "ana+sre@example.com"})
	if err != nil || p.Email != "ana+sre@example.com" {
		t.Errorf("%v, %v", p, err)
	}
	if me, err := w.ana.Whoami(ctx, &api.WhoamiRequest{}); err != nil || me.Person.Email != "ana+sre@example.com" {
		t.Errorf("%v, %v", me, err)
	}
	d, err := w.ada.AddPerson(ctx, &api.AddPersonRequest{Name: "dan", Email: "dan@example.com"})
	if err != nil || d.Person.Email != "dan@example.com" {
		t.Errorf("%v, %v", d, err)
	}
	if p, err = w.ada.SetEmail(ctx, &api.SetEmailRequest{Name: "dan"}); err != nil || p.Email != "" {
		t.Errorf("%v, %v", p, err)
	}
	all, err := w.ada.SearchEvents(ctx, &api.SearchEventsRequest{Kind: "admin", Limit: 100})
	must(t, err)
	said := ""
	for _, e := range all.Events {
		said += e.Text + "\n"
	}
	if strings.Contains(said, "example.com") || !strings.Contains(said, "set the mail address of ana") || !strings.Contains(said, "took the mail address of dan away") {
		t.Errorf("the record says %s", said)
	}
}

func TestAdminsProveThemselvesAgain(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	w.clock.pass(15 * time.Minute)
	calls := map[string]func(code string) error{
		"add": func(code string) error {
			_, err := w.ada.AddPerson(ctx, &api.AddPersonRequest{Name: "dan", Code: code})
			return err
		},
		"invite": func(code string) error {
			_, err := w.ada.InvitePerson(ctx, &api.InvitePersonRequest{Name: "ben", Code: code})
			return err
		},
		"email": func(code string) error {
			_, err := w.ada.SetEmail(ctx, &api.SetEmailRequest{Name: "ben", Email: "ben@example.com", Code: code})
			return err
		},
		"token": func(code string) error {
			_, err := w.ada.CreateJoinToken(ctx, &api.CreateJoinTokenRequest{Code: code})
			return err
		},
	}
	for name, call := range calls {
		err := call("")
		refused(t, err, connect.CodeUnauthenticated, "second factor")
		if ce := (*connect.Error)(nil); !errors.As(err, &ce) || ce.Meta().Get(capi.NeedsHeader) != "code" {
			t.Errorf("%s does not say what it needs: %v", name, err)
		}
		refused(t, call("000000"), connect.CodePermissionDenied, "not right")
	}
	must(t, calls["add"](w.ada.code(t)))
	must(t, calls["invite"](""))
	w.clock.pass(15 * time.Minute)
	refused(t, calls["token"](""), connect.CodeUnauthenticated, "second factor")
	// What only takes away waits for no code.
	_, err := w.ada.DisablePerson(ctx, &api.DisablePersonRequest{Name: "dan"})
	must(t, err)
	_, err = w.ada.DecommissionHost(ctx, &api.DecommissionHostRequest{Name: "db2"})
	must(t, err)
	got, err := w.ada.SearchEvents(ctx, &api.SearchEventsRequest{Kind: "admin", Person: "ada", Limit: 100})
	must(t, err)
	var said []string
	for _, e := range got.Events {
		said = append(said, e.Text)
	}
	want := []string{
		`enrolled device "laptop" and a second factor, in place of all earlier ones`, "added dan, a person", "made a code for dan to enrol with",
		"made a code for ben to enrol with", "disabled dan", "decommissioned host db2: 0 grants stood on it, or ended without its word that nothing is left",
	}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Error(diff)
	}
}

func TestSilenceAboutAnEndIsAnAlert(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r := w.issued(t)
	state := func() *api.HostState {
		t.Helper()
		got, err := w.ana.GetRequest(ctx, &api.GetRequestRequest{Id: r.Id})
		must(t, err)
		return got.HostStates[0]
	}
	_, err := w.ben.Revoke(ctx, &api.RevokeRequest{Grant: r.Grant})
	must(t, err)
	ended := w.clock.Now().Wall
	w.clock.pass(time.Minute)
	must(t, w.server.Alert(ctx))
	if s := w.log.String(); strings.Contains(s, "alert: a grant ended") {
		t.Error("a minute is not over:", s)
	}
	w.clock.pass(time.Second)
	must(t, w.server.Alert(ctx))
	must(t, w.server.Alert(ctx))
	if s := w.log.String(); strings.Count(s, "alert: a grant ended") != 1 || !strings.Contains(s, "host=db1") {
		t.Error("not told once:", s)
	}
	if s := state(); s.State != "unconfirmed" || !s.At.AsTime().Equal(ended) {
		t.Errorf("%v", s)
	}
	line, err := w.ana.Timeline(ctx, &api.TimelineRequest{Grant: r.Grant})
	must(t, err)
	if !slices.ContainsFunc(line.Moments, func(m *api.Moment) bool { return m.What == "unconfirmed" && m.Host == "db1" }) {
		t.Error("the story does not tell it")
	}
	// The host holds a later set, and never told of this grant.
	v, err := w.store.State(ctx, "db1")
	must(t, err)
	must(t, w.store.Applied(ctx, "db1", roster.Report{Revision: v.Revision, Settled: true}, w.clock.Now().Wall))
	if s := state(); s.State != "never-installed" {
		t.Errorf("%v", s)
	}
	if left, err := w.server.Unconfirmed(ctx); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
	w.hostReports(t, r, w.clock.Now().Wall)
	if left, err := w.server.Unconfirmed(ctx); err != nil || len(left) != 0 || state().State != "removed" {
		t.Errorf("with a receipt: %v, %v, %v", left, err, state())
	}
}

// What a host signs for is not an end while something is left.
func TestWhatIsLeftAtAnEndIsAnAlertUntilItIsGone(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r := w.issued(t)
	_, err := w.ben.Revoke(ctx, &api.RevokeRequest{Grant: r.Grant})
	must(t, err)
	ended := w.clock.Now().Wall
	seq := uint64(0)
	says := func(left ...string) {
		t.Helper()
		receipt := ledger.Receipt{Fleet: "lab", Host: "db1", Grant: r.Grant, Person: "ana", Why: "revoked", EndedAt: ended, DoneAt: ended.Add(time.Second), Left: left}
		e := ledger.Entry{Kind: ledger.Removed, At: receipt.DoneAt, Host: "db1", Grant: r.Grant, Person: "ana", Receipt: receipt.Seal(w.hostKey)}
		seq++
		_, err := w.store.KeepRecords(ctx, "db1", "o", []roster.Record{{Seq: seq, Entry: e.Bytes()}})
		must(t, err)
	}
	holds := func(state string, silent int, left ...string) {
		t.Helper()
		got, err := w.ana.GetRequest(ctx, &api.GetRequestRequest{Id: r.Id})
		must(t, err)
		if s := got.HostStates[0]; s.State != state || !slices.Equal(s.Left, left) {
			t.Errorf("%v", s)
		}
		if all, err := w.server.Unconfirmed(ctx); err != nil || len(all) != silent {
			t.Errorf("%v, %v", all, err)
		}
	}
	// The host holds a later set: that it has passed by takes no receipt's place.
	v, err := w.store.State(ctx, "db1")
	must(t, err)
	must(t, w.store.Applied(ctx, "db1", roster.Report{Revision: v.Revision}, ended))
	says("session 3f", "account ana")
	holds("unconfirmed", 0, "session 3f", "account ana") // a minute is not over
	w.clock.pass(2 * time.Minute)
	must(t, w.server.Alert(ctx))
	must(t, w.server.Alert(ctx))
	if s := w.log.String(); strings.Count(s, "alert: a grant ended") != 1 || !strings.Contains(s, "signed that something is left") {
		t.Error("not told once:", s)
	}
	line, err := w.ana.Timeline(ctx, &api.TimelineRequest{Grant: r.Grant})
	must(t, err)
	if !slices.ContainsFunc(line.Moments, func(m *api.Moment) bool {
		return m.What == "unconfirmed" && strings.Contains(m.Text, "something is left")
	}) {
		t.Error("the story does not tell it")
	}
	says("account ana")
	holds("unconfirmed", 1, "account ana")
	says()
	holds("removed", 0)
}

func TestDisabledIsOutAtOnce(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r := w.issued(t)
	if p, err := w.ada.DisablePerson(ctx, &api.DisablePersonRequest{Name: "ana"}); err != nil || !p.Disabled {
		t.Fatalf("%v, %v", p, err)
	}
	_, err := w.ana.Whoami(ctx, &api.WhoamiRequest{})
	refused(t, err, connect.CodeUnauthenticated, "session is over")
	if len(w.held(t, "db1").Grants) != 0 {
		t.Error("her grant stands")
	}
	if r, err := w.ben.GetRequest(ctx, &api.GetRequestRequest{Id: r.Id}); err != nil || r.State != "revoked" || r.DecidedBy != "ada" {
		t.Errorf("%v, %v", r, err)
	}
	_, err = w.ada.InvitePerson(ctx, &api.InvitePersonRequest{Name: "ana"})
	refused(t, err, connect.CodeFailedPrecondition, "disabled")
}

func TestSessions(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	client := func(session string, key ed25519.PrivateKey) apiconnect.CurfewClient {
		return apiconnect.NewCurfewClient(&http.Client{Transport: signature.Transport{
			Base: http.DefaultTransport, Session: session, Key: key, Now: func() time.Time { return w.clock.Now().Wall },
		}}, w.url)
	}
	_, err := w.anonymous().Whoami(ctx, &api.WhoamiRequest{})
	refused(t, err, connect.CodeUnauthenticated, "not signed")
	_, err = client(w.ana.session, w.eve.key).Whoami(ctx, &api.WhoamiRequest{})
	refused(t, err, connect.CodeUnauthenticated, "false")
	_, err = client("s-aaaa", w.eve.key).Whoami(ctx, &api.WhoamiRequest{})
	refused(t, err, connect.CodeUnauthenticated, "session is over")

	now := w.clock.Now().Wall
	login := &api.LoginRequest{Person: "ana", DeviceKey: w.ana.key.Public().(ed25519.PublicKey), At: now.Unix(), Code: w.ana.code(t)}
	login.Signature = ed25519.Sign(w.ana.key, dsse.PAE("application/vnd.curfew.login.v1", []byte("lab\x00ana\x00"+itoa(now.Unix()))))
	s, err := w.anonymous().Login(ctx, login)
	must(t, err)
	again := client(s.Session, w.ana.key)
	if who, err := again.Whoami(ctx, &api.WhoamiRequest{}); err != nil || who.Person.Name != "ana" {
		t.Errorf("%v, %v", who, err)
	}
	_, err = w.anonymous().Login(ctx, login)
	refused(t, err, connect.CodePermissionDenied, "used already")
	_, err = again.Logout(ctx, &api.LogoutRequest{})
	must(t, err)
	_, err = again.Whoami(ctx, &api.WhoamiRequest{})
	refused(t, err, connect.CodeUnauthenticated, "session is over")
	w.clock.pass(12 * time.Hour)
	_, err = w.ana.Whoami(ctx, &api.WhoamiRequest{})
	refused(t, err, connect.CodeUnauthenticated, "session is over")
}

func itoa(n int64) string {
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return string(b)
}

func TestGuessingIsBounded(t *testing.T) {
	w := newWorld(t)
	for range 5 {
		_, err := w.ana.CreateRequest(t.Context(), question(t, w.ana, func(m *api.CreateRequestRequest) { m.Code = "000000" }))
		refused(t, err, connect.CodePermissionDenied, "not right")
	}
	m := question(t, w.ana, same)
	w.clock.pass(-30 * time.Second)
	_, err := w.ana.CreateRequest(t.Context(), m)
	refused(t, err, connect.CodeResourceExhausted, "wait until")
}

func sshKey(t *testing.T) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	k, err := ssh.NewPublicKey(public)
	must(t, err)
	return string(ssh.MarshalAuthorizedKey(k))
}

func TestSSHCertificate(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	ask := func(host string) (*api.IssueSSHCertificateReply, error) {
		return w.ana.IssueSSHCertificate(ctx, &api.IssueSSHCertificateRequest{Host: host, PublicKey: sshKey(t)})
	}
	_, err := ask("db1")
	refused(t, err, connect.CodePermissionDenied, "no grant that stands")
	r := w.issued(t)
	c, err := ask("db1")
	must(t, err)
	if c.User != "ana" || c.Grant != r.Grant || !c.Expires.AsTime().Equal(r.NotAfter.AsTime()) || len(c.Addresses) != 1 {
		t.Errorf("%v", c)
	}
	_, err = ask("db2")
	refused(t, err, connect.CodePermissionDenied, "no grant that stands")
	_, err = w.ana.IssueSSHCertificate(ctx, &api.IssueSSHCertificateRequest{Host: "db1", PublicKey: "ssh-rsa AAAA"})
	refused(t, err, connect.CodeInvalidArgument, "SSH key")
	w.clock.pass(time.Hour) // nobody has kept the books yet
	_, err = ask("db1")
	refused(t, err, connect.CodePermissionDenied, "no grant that stands")
}

func TestOurTroublesAreNotShown(t *testing.T) {
	w := newWorld(t)
	must(t, w.store.Close())
	_, err := w.ana.Whoami(t.Context(), &api.WhoamiRequest{})
	refused(t, err, connect.CodeInternal, "something went wrong on the server")
	if !strings.Contains(w.log.String(), "closed") {
		t.Errorf("the log does not say what: %s", w.log)
	}
}

func TestLogHasNoSecrets(t *testing.T) {
	w := newWorld(t)
	r := w.issued(t)
	for _, p := range []*person{w.ana, w.ben} {
		for _, secret := range []string{p.secret, p.session} {
			if strings.Contains(w.log.String(), secret) {
				t.Errorf("the log holds %s's secret", p.name)
			}
		}
	}
	if !strings.Contains(w.log.String(), r.Id) {
		t.Error("the log does not name the request")
	}
}
