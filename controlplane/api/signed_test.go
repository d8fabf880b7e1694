package api_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"curfew.internal/controlplane/identity"
	"curfew.internal/controlplane/roster"
	"curfew.internal/dsse"
	"curfew.internal/grant"
	"curfew.internal/test/passkey"
	"curfew.internal/wire/api"
)

const origin = "https://curfew.example"

// signing is a world whose role people's own keys sign for, and whose roster
// names ana, who asks, and ben, who approves.
type signing struct {
	*world
	t       *testing.T
	root    ed25519.PrivateKey // of the fleet, from its offline place
	owners  []ed25519.PrivateKey
	keys    map[string]*passkey.Key
	browser map[string]context.Context
	roster  grant.Roster
}

func newSigning(t *testing.T) *signing {
	t.Helper()
	s := &signing{world: newWorld(t), t: t, keys: map[string]*passkey.Key{}, browser: map[string]context.Context{}}
	var err error
	s.desk.Passkeys, err = identity.NewPasskeys("lab", origin)
	must(t, err)
	s.server.Pages = origin
	s.rules.change(func() {
		s.rules.role = grant.Role{Name: "db-admin", RunAs: []string{"root"}, AnyCommand: true, Signed: true}
	})
	s.root = readRoot(t, s.dir)
	for i := range byte(2) {
		s.owners = append(s.owners, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{10 + i}, 32)))
	}
	for _, name := range []string{"ana", "ben", "cy"} {
		s.keys[name] = passkey.New(origin)
		s.browser[name] = s.enrolPasskey(name, s.keys[name])
	}
	s.roster = s.drawn()
	return s
}

// enrolPasskey is the context of the browser in which the person enrolled it.
func (s *signing) enrolPasskey(name string, k *passkey.Key) context.Context {
	s.t.Helper()
	secret, _, err := s.desk.InviteBeside(s.t.Context(), name)
	must(s.t, err)
	_, c, err := s.desk.AskEnrol(s.t.Context(), secret)
	must(s.t, err)
	made, err := k.Make(c.Options)
	must(s.t, err)
	b, err := json.Marshal(roster.Answer{Token: c.Token, Answer: made})
	must(s.t, err)
	cookie, _, err := s.desk.EnrolPasskey(s.t.Context(), secret, b, "phone", "a browser")
	must(s.t, err)
	ctx, err := s.server.As(s.t.Context(), cookie)
	must(s.t, err)
	return ctx
}

// drawn is what owners draw up of what the server says of passkeys.
func (s *signing) drawn() grant.Roster {
	s.t.Helper()
	m, err := s.ada.GetRoster(s.t.Context(), &api.GetRosterRequest{})
	must(s.t, err)
	r := grant.Roster{
		Fleet: m.Fleet, Version: 1, Expires: noon.Add(24 * time.Hour), Threshold: 2, Party: m.Party, Origins: []string{m.Origin}, Approvals: 1,
	}
	for _, o := range s.owners {
		r.Owners = append(r.Owners, o.Public().(ed25519.PublicKey))
	}
	slices.SortFunc(r.Owners, func(a, b ed25519.PublicKey) int { return bytes.Compare(a, b) })
	for _, p := range m.People {
		if p.Person != "ana" && p.Person != "ben" {
			continue
		}
		one := grant.Member{Name: p.Person, Approves: p.Person == "ben"}
		for _, k := range p.Keys {
			one.Keys = append(one.Keys, grant.Passkey{ID: k.Id, Public: k.Public})
		}
		r.Members = append(r.Members, one)
	}
	return r
}

func (s *signing) publish(r grant.Roster, by ...ed25519.PrivateKey) error {
	s.t.Helper()
	_, err := s.ada.PublishRoster(s.t.Context(), &api.PublishRosterRequest{Envelope: dsse.Sign(grant.RosterType, r.Bytes(), by...).Bytes(), Code: s.ada.fresh(s.t)})
	return err
}

// touch has the person's passkey answer for the call.
func (s *signing) touch(name string, m proto.Message) []byte {
	s.t.Helper()
	c, err := s.server.Challenge(s.browser[name], m)
	must(s.t, err)
	answer, err := s.keys[name].Answer(c.Options)
	must(s.t, err)
	b, err := json.Marshal(roster.Answer{Token: c.Token, Answer: answer})
	must(s.t, err)
	return b
}

func (s *signing) sign(r *api.Request) (*api.Request, error) {
	s.t.Helper()
	m := &api.SignRequest{Id: r.Id, Digest: r.Digest}
	m.Assertion = s.touch("ana", m)
	return s.server.Sign(s.browser["ana"], m)
}

func (s *signing) approve(name string, m *api.ApproveRequest) (*api.Request, error) {
	s.t.Helper()
	m.Assertion = s.touch(name, m)
	return s.server.Approve(s.browser[name], m)
}

// host is what db1 makes of a set, under the roster that it holds.
func (s *signing) host(st roster.State) grant.Opened {
	s.t.Helper()
	ring, err := grant.OpenKeyring(st.Keyring, "lab", []ed25519.PublicKey{s.authority.Root()})
	must(s.t, err)
	o, err := grant.Reader{Fleet: "lab", Host: "db1", Ring: ring, Roster: &s.roster}.Open(st.Set, s.clock.Now().Wall)
	must(s.t, err)
	return o
}

func (s *signing) state() roster.State {
	s.t.Helper()
	st, err := s.store.State(s.t.Context(), "db1")
	must(s.t, err)
	return st
}

// whole is a grant that ana asked for and signed, and ben approved and signed.
func (s *signing) whole() *api.Request {
	s.t.Helper()
	must(s.t, s.publish(s.roster, append(s.owners, s.root)...))
	r := s.ask(s.t)
	r, err := s.sign(r)
	must(s.t, err)
	r, err = s.approve("ben", &api.ApproveRequest{Id: r.Id, Digest: r.Digest})
	must(s.t, err)
	return r
}

func TestSignedGrantGoesItsWay(t *testing.T) {
	s := newSigning(t)
	must(t, s.publish(s.roster, append(s.owners, s.root)...))
	r := s.ask(t)
	if r.State != "asked" || !r.HumanSignatures || r.Signed || len(r.Approvers) != 0 || r.Page != origin+"/requests/"+r.Id || !strings.Contains(r.WaitsFor, "ana's own passkey") {
		t.Errorf("%v", r)
	}
	// Nobody's word counts before hers, nor a code in place of a passkey.
	_, err := s.server.Approve(s.browser["ben"], &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Assertion: []byte("x")})
	refusedHere(t, err, "ana's own passkey has to sign this request first")
	r, err = s.sign(r)
	must(t, err)
	if !r.Signed || !slices.Equal(r.Approvers, []string{"ben", "cy"}) {
		t.Errorf("%v", r)
	}
	_, err = s.server.Challenge(s.browser["ana"], &api.SignRequest{Id: r.Id, Digest: r.Digest})
	refusedHere(t, err, "signed this request already")
	_, err = s.ben.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: s.ben.fresh(t)})
	refused(t, err, connect.CodeFailedPrecondition, "approve it on its page, "+origin)
	// Cy may approve by the policy, and not by the roster: she is told at once.
	_, err = s.approve("cy", &api.ApproveRequest{Id: r.Id, Digest: r.Digest})
	refusedHere(t, err, "hosts would refuse this grant: cy: this host's roster does not let her approve")
	r, err = s.approve("ben", &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Duration: durationpb.New(30 * time.Minute), Note: "half of it"})
	must(t, err)
	if o := s.host(s.state()); len(o.Grants) != 1 || o.Grants[0].ID != r.Grant || o.Grants[0].NotAfter.Sub(o.Grants[0].NotBefore) != 30*time.Minute {
		t.Errorf("%+v", o)
	}
	_, err = s.ana.Extend(t.Context(), &api.ExtendRequest{Grant: r.Grant, Duration: durationpb.New(time.Minute), Code: s.ana.fresh(t)})
	refused(t, err, connect.CodeFailedPrecondition, "make a new request")
}

func TestSignatureIsForWhatWasShown(t *testing.T) {
	s := newSigning(t)
	must(t, s.publish(s.roster, append(s.owners, s.root)...))
	r := s.ask(t)
	_, err := s.server.Sign(s.browser["ana"], &api.SignRequest{Id: r.Id, Digest: r.Digest, Assertion: s.touch("ana", &api.FactorRequest{What: "device"})})
	refusedHere(t, err, "took too long, or was done before")
	_, err = s.server.Challenge(s.browser["ben"], &api.SignRequest{Id: r.Id, Digest: r.Digest})
	refusedHere(t, err, "only ana can sign")
	other := s.ask(t)
	_, err = s.server.Sign(s.browser["ana"], &api.SignRequest{Id: r.Id, Digest: r.Digest, Assertion: s.touch("ana", &api.SignRequest{Id: other.Id, Digest: other.Digest})})
	refusedHere(t, err, "not the request as you were shown it")
	r, err = s.sign(r)
	must(t, err)
	less := &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Duration: durationpb.New(time.Minute)}
	answer := s.touch("ben", less)
	_, err = s.server.Approve(s.browser["ben"], &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Assertion: answer})
	refusedHere(t, err, "not the request as you were shown it")
}

func TestNoRosterNoSignedRequest(t *testing.T) {
	s := newSigning(t)
	_, err := s.ana.CreateRequest(t.Context(), question(t, s.ana, same))
	refused(t, err, connect.CodeFailedPrecondition, "no roster of them was published")
	s.server.Pages = ""
	_, err = s.ana.CreateRequest(t.Context(), question(t, s.ana, same))
	refused(t, err, connect.CodeFailedPrecondition, "no pages")
}

func TestRosterIsPublishedByItsOwners(t *testing.T) {
	s := newSigning(t)
	next := func(change func(*grant.Roster)) grant.Roster {
		r := s.roster
		r.Version = 2
		change(&r)
		return r
	}
	for _, c := range []struct {
		name string
		r    grant.Roster
		by   []ed25519.PrivateKey
		want string // part of the refusal; empty: it is taken
	}{
		{"the first without the root", s.roster, s.owners, "too few owners"},
		{"the first by one owner", s.roster, []ed25519.PrivateKey{s.root, s.owners[0]}, "too few owners"},
		{"the first, expired", func() grant.Roster { r := s.roster; r.Expires = noon; return r }(), append(s.owners, s.root), "has expired"},
		{"the first", s.roster, append(s.owners, s.root), ""},
		{"it again", s.roster, append(s.owners, s.root), "not the next version"},
		{"the next by root alone", next(func(*grant.Roster) {}), []ed25519.PrivateKey{s.root}, "too few owners"},
		{"the next", next(func(r *grant.Roster) { r.All = true }), s.owners, ""},
	} {
		err := s.publish(c.r, c.by...)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		s.clock.pass(30 * time.Second)
	}
	if st := s.state(); st.Roster != 2 {
		t.Errorf("hosts are told of roster %d", st.Roster)
	}
	_, err := s.ana.PublishRoster(t.Context(), &api.PublishRosterRequest{})
	refused(t, err, connect.CodePermissionDenied, "for admins")
	_, err = s.ana.GetRoster(t.Context(), &api.GetRosterRequest{})
	refused(t, err, connect.CodePermissionDenied, "for admins")
}

// The end of a roster stops what it wants signed, everywhere: its operator is
// told before, and not every second.
func TestEndOfARosterIsAnAlert(t *testing.T) {
	s := newSigning(t)
	s.roster.Expires = noon.Add(20 * 24 * time.Hour)
	must(t, s.publish(s.roster, append(s.owners, s.root)...))
	for _, c := range []struct {
		name  string
		after time.Duration
		want  int
	}{
		{"long before", 0, 0},
		{"two weeks before", 6 * 24 * time.Hour, 1},
		{"at once again", time.Second, 1},
		{"half a day later", 12 * time.Hour, 2},
	} {
		s.clock.pass(c.after)
		must(t, s.server.Alert(t.Context()))
		if n := strings.Count(s.log.String(), "alert: the roster of people's keys ends"); n != c.want {
			t.Errorf("%s: told %d times, want %d", c.name, n, c.want)
		}
	}
}

// A thief has the grant key, the CA, the key of secrets and the database, and
// so the whole of this process. What he cannot have is people's passkeys, the
// owners' keys and the root. Whatever he sends, db1 takes what was signed for
// and nothing else.
func TestStolenControlPlaneGivesNothing(t *testing.T) {
	s := newSigning(t)
	r := s.whole()
	st := s.state()
	true1 := s.host(st)
	if len(true1.Grants) != 1 {
		t.Fatal(true1.Refused)
	}
	g := true1.Grants[0]
	send := func(g grant.Grant) error {
		set := grant.Set{Fleet: "lab", Host: "db1", Revision: st.Revision + 1, IssuedAt: noon, Grants: [][]byte{s.authority.SignGrant(g)}}
		o := s.host(roster.State{Keyring: st.Keyring, Set: s.authority.SignSet(set)})
		return errors.Join(o.Refused...)
	}
	must(t, send(g)) // the set is made as it should be
	// The thief's own passkey, enrolled as ben's, signs what he likes.
	mal := passkey.New(origin)
	s.enrolPasskey("ben", mal)
	forged, err := mal.Sign("curfew.example", grant.Yes{Ask: g.Digest, Person: "ben", At: noon}.Digest())
	must(t, err)
	for _, c := range []struct {
		name  string
		alter func(*grant.Grant)
		want  error
	}{
		{"without the mark and the words", func(g *grant.Grant) { g.Role.Signed, g.Words = false, nil }, grant.ErrUnsigned},
		{"as another role", func(g *grant.Grant) { g.Role.Signed, g.Words, g.Role.Name = false, nil, "look" }, grant.ErrUnsigned},
		{"longer", func(g *grant.Grant) { g.NotAfter = g.NotAfter.Add(time.Hour) }, grant.ErrWider},
		{"on a host more", func(g *grant.Grant) { g.Hosts = []string{"db1", "db2"} }, grant.ErrWider},
		{"for somebody else", func(g *grant.Grant) { g.Person.Name, g.Asked.Person = "eve", "eve" }, grant.ErrOtherAsked},
		{"a day later", func(g *grant.Grant) {
			g.NotBefore, g.NotAfter = g.NotBefore.AddDate(0, 0, 1), g.NotAfter.AddDate(0, 0, 1)
		}, grant.ErrWider},
		{"without the approval", func(g *grant.Grant) { g.Approvals, g.Words.Approvals = nil, nil }, grant.ErrFewApproved},
		{"approved by a key that the thief enrolled", func(g *grant.Grant) {
			g.Words.Approvals[0].Word = grant.Assertion{Key: forged.ID, Authenticator: forged.Authenticator, Client: forged.Client, Signature: forged.Signature}
		}, grant.ErrAssertion},
		{"approved by a key that says it is ben's", func(g *grant.Grant) {
			g.Words.Approvals[0].Word = grant.Assertion{Key: g.Words.Approvals[0].Word.Key, Authenticator: forged.Authenticator, Client: forged.Client, Signature: forged.Signature}
		}, grant.ErrAssertion},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad, err := grant.Parse(g.Bytes())
			must(t, err)
			c.alter(&bad)
			if err := send(bad); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	t.Run("a roster of his own", func(t *testing.T) {
		r := s.roster
		r.Version = 2
		r.Members = slices.Clone(r.Members)
		r.Members[1].Keys = []grant.Passkey{{ID: mal.ID(), Public: r.Members[1].Keys[0].Public}}
		for name, by := range map[string][]ed25519.PrivateKey{"nobody's": nil, "his own key's": {s.hostKey}, "the root's, had he that as well": {s.root}} {
			if _, err := s.roster.Follow(dsse.Sign(grant.RosterType, r.Bytes(), by...).Bytes(), "lab", []ed25519.PublicKey{s.authority.Root()}); !errors.Is(err, grant.ErrQuorum) {
				t.Errorf("by %s: %v", name, err)
			}
		}
	})
	t.Run("what the database says of the policy", func(t *testing.T) {
		s.rules.change(func() { s.rules.role.Signed, s.rules.needed = false, 0 })
		s.clock.pass(time.Minute)
		// As long as the server knows the roster, it says what hosts will.
		_, err := s.ana.CreateRequest(t.Context(), question(t, s.ana, same))
		refused(t, err, connect.CodeFailedPrecondition, "hosts would refuse this grant: this host's roster demands")
		s.forget()
		s.clock.pass(time.Minute)
		s.ask(t)
		o := s.host(s.state())
		if len(o.Grants) != 1 || o.Grants[0].ID != r.Grant || len(o.Refused) != 1 || !errors.Is(o.Refused[0], grant.ErrUnsigned) {
			t.Errorf("%+v", o)
		}
	})
}

// forget takes the roster out of the database, as whoever has that can.
func (s *signing) forget() {
	s.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.dir, "db")+"?_pragma=busy_timeout(10000)")
	must(s.t, err)
	_, err = db.ExecContext(s.t.Context(), "DELETE FROM rosters")
	must(s.t, errors.Join(err, db.Close()))
}

// refusedHere checks what a call of the pages was refused with.
func refusedHere(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want …%s…", err, text)
	}
}

// readRoot reads the root key from where it was made.
func readRoot(t *testing.T, dir string) ed25519.PrivateKey {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "root.key"))
	must(t, err)
	block, _ := pem.Decode(b)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(t, err)
	return key.(ed25519.PrivateKey)
}
