package store

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/controlplane/roster"
	"curfew.internal/dsse"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

var (
	noon    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	grantKy = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	hostKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
)

// signer is a grant key and nothing else.
type signer struct{}

func (signer) SignGrant(g grant.Grant) []byte {
	return dsse.Sign(grant.Type, g.Bytes(), grantKy).Bytes()
}

func (signer) SignSet(s grant.Set) []byte {
	return dsse.Sign(grant.SetType, s.Bytes(), grantKy).Bytes()
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func openAt(t *testing.T, place string) *Store {
	t.Helper()
	s, err := Open(t.Context(), place, "lab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	s.Use(signer{})
	return s
}

func fresh(t *testing.T) *Store {
	t.Helper()
	return openAt(t, newPlace(t))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// refused checks that the database itself refused, and for that reason.
func refused(t *testing.T, err error, why string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("got %v, want %q", err, why)
	}
}

func addPerson(t *testing.T, s *Store, name string) roster.Person {
	t.Helper()
	p, err := s.AddPerson(t.Context(), roster.Person{Name: name, FullName: "Dr. " + name}, roster.Act{By: "root", At: noon})
	must(t, err)
	return p
}

func addHost(t *testing.T, s *Store, name string) roster.Host {
	t.Helper()
	k := roster.JoinToken{Hash: [32]byte{1, byte(len(name)), name[len(name)-1]}, Labels: newHost(name).Labels, Expires: noon.Add(time.Hour)}
	must(t, s.PutJoinToken(t.Context(), k, noon))
	h, err := s.UseJoinToken(t.Context(), k.Hash, newHost(name), noon)
	must(t, err)
	return h
}

func newHost(name string) roster.Host {
	return roster.Host{Name: name, Labels: map[string]string{"tier": "web", "zone": "a"}, Addresses: []string{"10.0.0.1"}, ReceiptKey: public(hostKey), Identity: "id-" + name}
}

// opened is what the host would read from its state.
func opened(t *testing.T, s *Store, name string) grant.Opened {
	t.Helper()
	st, err := s.State(t.Context(), name)
	must(t, err)
	ring := grant.Keyring{Fleet: "lab", Keys: []grant.Key{{Public: public(grantKy), NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(1e6 * time.Hour)}}}
	o, err := grant.Reader{Fleet: "lab", Host: name, Ring: ring}.Open(st.Set, noon)
	must(t, err)
	if len(o.Refused) > 0 || o.Revision != st.Revision {
		t.Fatalf("set of %s: %+v", name, o)
	}
	return o
}

func TestPeople(t *testing.T) {
	s := fresh(t)
	ana, ben := addPerson(t, s, "ana"), addPerson(t, s, "ben")
	if ana.UID != grant.UIDMin || ben.UID != grant.UIDMin+1 {
		t.Errorf("uids %d and %d", ana.UID, ben.UID)
	}
	_, err := s.AddPerson(t.Context(), roster.Person{Name: "ana"}, roster.Act{By: "root", At: noon})
	want(t, "twice", err, roster.ErrExists)
	for _, name := range []string{"root", "../x", "a.b", "a~", "-x", "a b", "a\nb", "аna", string(make([]byte, 300)), "Ana", ""} {
		if _, err := s.AddPerson(t.Context(), roster.Person{Name: name}, roster.Act{By: "root", At: noon}); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
	p, err := s.DisablePerson(t.Context(), "ben", roster.Act{By: "ana", At: noon})
	must(t, err)
	if !p.Disabled || addPerson(t, s, "eve").UID != grant.UIDMin+2 {
		t.Error("not disabled, or a uid was given again")
	}
	_, err = s.one.ExecContext(t.Context(), `DELETE FROM people WHERE name = 'ben'`)
	refused(t, err, "people are disabled, not deleted")
	_, err = s.Person(t.Context(), "nobody")
	want(t, "nobody", err, roster.ErrUnknown)
	all, err := s.People(t.Context())
	if err != nil || len(all) != 3 {
		t.Errorf("%v, %v", all, err)
	}
}

func TestEnrolmentTakesThePlaceOfAllEarlier(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addPerson(t, s, "ana")
	enrol := func(n byte) roster.Session {
		i := roster.Invite{Hash: [32]byte{n}, Person: "ana", Expires: noon.Add(time.Hour)}
		must(t, s.PutInvite(ctx, i, roster.Act{By: "root", At: noon}))
		device := public(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32)))
		v := roster.Session{ID: "s-" + string('a'+rune(n)), Person: "ana", Device: device, Expires: noon.Add(time.Hour)}
		e := roster.Enrolment{Invite: i.Hash, Factor: roster.TOTP{Secret: []byte{n}, LastStep: 7}, Session: v}
		must(t, s.UseInvite(ctx, e, noon))
		want(t, "invite again", s.UseInvite(ctx, e, noon), roster.ErrUsed)
		return v
	}
	first := enrol(1)
	got, p, err := s.Session(ctx, first.ID, noon)
	if err != nil || !p.Enrolled || cmp.Diff(first, got) != "" {
		t.Fatalf("%+v, %+v, %v", got, p, err)
	}
	_, _, err = s.Session(ctx, first.ID, first.Expires)
	want(t, "session at its end", err, roster.ErrUnknown)
	second := enrol(2)
	_, _, err = s.Session(ctx, first.ID, noon)
	want(t, "the earlier session", err, roster.ErrUnknown)
	_, err = s.Device(ctx, first.Device)
	want(t, "the earlier device", err, roster.ErrUnknown)
	must(t, s.EndSession(ctx, second, roster.SignedOut, noon))
	_, _, err = s.Session(ctx, second.ID, noon)
	want(t, "after logout", err, roster.ErrUnknown)
	must(t, s.AddSession(ctx, second, noon))
	_, err = s.DisablePerson(ctx, "ana", roster.Act{By: "ben", At: noon})
	must(t, err)
	_, _, err = s.Session(ctx, second.ID, noon)
	want(t, "after she was disabled", err, roster.ErrUnknown)
	want(t, "code for somebody disabled", s.PutInvite(ctx, roster.Invite{Person: "ana"}, roster.Act{By: "root", At: noon}), roster.ErrDisabled)
}

func TestWrongGuessIsKept(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addPerson(t, s, "ana")
	i := roster.Invite{Hash: [32]byte{1}, Person: "ana", Expires: noon.Add(time.Hour)}
	must(t, s.PutInvite(ctx, i, roster.Act{By: "root", At: noon}))
	wrong := errors.New("wrong")
	err := s.UpdateInvite(ctx, i.Hash, func(i roster.Invite) (roster.Invite, error) { i.Pending.Failures++; return i, wrong })
	want(t, "update", err, wrong)
	must(t, s.UpdateInvite(ctx, i.Hash, func(i roster.Invite) (roster.Invite, error) {
		if i.Pending.Failures != 1 {
			t.Errorf("%d failures", i.Pending.Failures)
		}
		return i, nil
	}))
}

func TestNonce(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	must(t, s.UseNonce(ctx, "s-a", "n", noon.Add(time.Minute), noon))
	want(t, "again", s.UseNonce(ctx, "s-a", "n", noon.Add(time.Minute), noon), roster.ErrUsed)
	must(t, s.UseNonce(ctx, "s-b", "n", noon.Add(time.Minute), noon))
	must(t, s.UseNonce(ctx, "s-a", "n", noon.Add(time.Hour), noon.Add(2*time.Minute+keptOver)))
}

func TestJoin(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	k := roster.JoinToken{Hash: [32]byte{1}, Labels: map[string]string{"tier": "web", "zone": "a", "env": "prod"}, Expires: noon.Add(time.Hour)}
	must(t, s.PutJoinToken(ctx, k, noon))
	_, err := s.UseJoinToken(ctx, [32]byte{9}, newHost("db1"), noon)
	want(t, "unknown token", err, roster.ErrUnknown)
	_, err = s.UseJoinToken(ctx, k.Hash, newHost("db1"), k.Expires)
	want(t, "expired token", err, roster.ErrUsed)
	for _, labels := range []map[string]string{{"tier": "db"}, {"tier": "web", "team": "a"}} {
		chosen := newHost("db1")
		chosen.Labels = labels
		_, err = s.UseJoinToken(ctx, k.Hash, chosen, noon)
		want(t, fmt.Sprintf("a host that gives itself %v", labels), err, roster.ErrLabels)
	}
	h, err := s.UseJoinToken(ctx, k.Hash, newHost("db1"), noon)
	must(t, err)
	if diff := cmp.Diff(k.Labels, h.Labels); diff != "" {
		t.Error("the labels are the token's:", diff)
	}
	_, err = s.UseJoinToken(ctx, k.Hash, newHost("db2"), noon)
	want(t, "used token", err, roster.ErrUsed)
	if o := opened(t, s, "db1"); o.Revision != 1 || len(o.Grants) != 0 {
		t.Errorf("first set: %+v", o)
	}

	other := roster.JoinToken{Hash: [32]byte{2}, Labels: newHost("").Labels, Expires: noon.Add(time.Hour)}
	must(t, s.PutJoinToken(ctx, other, noon))
	_, err = s.UseJoinToken(ctx, other.Hash, newHost("db1"), noon)
	want(t, "a name that is taken", err, roster.ErrExists)
	named := roster.JoinToken{Hash: [32]byte{3}, Host: "db1", Labels: newHost("").Labels, Expires: noon.Add(time.Hour)}
	must(t, s.PutJoinToken(ctx, named, noon))
	_, err = s.UseJoinToken(ctx, named.Hash, newHost("db2"), noon)
	want(t, "a token for another name", err, roster.ErrUnknown)
	again := newHost("db1")
	again.Identity = "id-new"
	h, err = s.UseJoinToken(ctx, named.Hash, again, noon)
	if err != nil || h.Identity != "id-new" || opened(t, s, "db1").Revision != 2 {
		t.Errorf("the same host again: %+v, %v", h, err)
	}

	h, err = s.DecommissionHost(ctx, "db1", roster.Act{By: "root", At: noon})
	if err != nil || !h.Decommissioned || h.Leaving != 0 {
		t.Errorf("decommission: %+v, %v", h, err)
	}
	_, err = s.State(ctx, "db1")
	want(t, "state of a host that is gone", err, roster.ErrUnknown)
	_, err = s.UseJoinToken(ctx, other.Hash, newHost("db1"), noon.Add(time.Minute))
	if err != nil || opened(t, s, "db1").Revision != 3 {
		t.Errorf("a later host of the name: %v", err)
	}
}

// A code for a host by name, as its doctor has an administrator make, is no
// word on what it is let in as: as long as it is in the fleet.
func TestTheSameHostAgainKeepsItsLabels(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	is := addHost(t, s, "db1").Labels
	again := func(id byte, labels map[string]string) map[string]string {
		t.Helper()
		k := roster.JoinToken{Hash: [32]byte{id}, Host: "db1", Labels: labels, Expires: noon.Add(time.Hour)}
		must(t, s.PutJoinToken(ctx, k, noon))
		h := newHost("db1")
		h.Labels = labels // those that it expects
		h, err := s.UseJoinToken(ctx, k.Hash, h, noon)
		must(t, err)
		return h.Labels
	}
	if diff := cmp.Diff(is, again(51, map[string]string{})); diff != "" {
		t.Error("it lost its labels:", diff)
	}
	other := map[string]string{"tier": "db"}
	if diff := cmp.Diff(other, again(52, other)); diff != "" {
		t.Error("the labels are the token's, if it has some:", diff)
	}
	_, err := s.DecommissionHost(ctx, "db1", roster.Act{By: "root", At: noon})
	must(t, err)
	if got := again(53, map[string]string{}); len(got) != 0 {
		t.Error("a later host of the name has the old one's labels:", got)
	}
}

func TestHostReports(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addHost(t, s, "db1")
	must(t, s.Seen(ctx, "db1", noon, roster.Host{AgentVersion: "1", Mode: "lsm", Boot: "b", Addresses: []string{"a:22"}, SSHHostKeys: []string{"k"}}))
	must(t, s.Applied(ctx, "db1", roster.Report{Revision: 1, Refused: "why"}, noon.Add(time.Second)))
	h, err := s.Host(ctx, "db1")
	must(t, err)
	if h.Applied != 1 || h.Refused != "why" || h.Mode != "lsm" || !h.Seen.Equal(noon.Add(time.Second)) || h.Addresses[0] != "a:22" {
		t.Errorf("%+v", h)
	}
	want(t, "unknown host", s.Seen(ctx, "x", noon, roster.Host{}), roster.ErrUnknown)
	found := []roster.Finding{{Check: "names", Severity: "broken", Says: "systemd is not asked", Mend: "sed"}}
	must(t, s.Applied(ctx, "db1", roster.Report{Revision: 1, Access: "enforce", Examined: noon, Findings: found}, noon))
	h, err = s.Host(ctx, "db1")
	must(t, err)
	if h.Access != "enforce" || !h.Examined.Equal(noon) || !cmp.Equal(h.Findings, found) {
		t.Errorf("%+v", h)
	}
	must(t, s.Applied(ctx, "db1", roster.Report{Revision: 1}, noon)) // an agent that has not looked yet
	if h, err = s.Host(ctx, "db1"); err != nil || !h.Examined.IsZero() || h.Findings != nil || h.Access != "" {
		t.Errorf("%+v, %v", h, err)
	}
}

func entry(seq uint64, alter func(*ledger.Entry)) roster.Record {
	e := ledger.Entry{Kind: ledger.Exec, At: noon.Add(time.Duration(seq)), Host: "db1", Process: &ledger.Process{PID: 3, Argv: []string{"/bin/Echo", "100%", "seq_" + string('0'+rune(seq))}}}
	alter(&e)
	return roster.Record{Seq: seq, Entry: e.Bytes()}
}

func same(*ledger.Entry) {}

func TestKeepRecords(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addHost(t, s, "db1")
	addHost(t, s, "web2")
	keep := func(host string, r ...roster.Record) (uint64, error) { return s.KeepRecords(ctx, host, "o1", r) }
	upTo, err := keep("db1", entry(1, same), entry(2, same))
	if err != nil || upTo != 2 {
		t.Fatal(upTo, err)
	}
	upTo, err = keep("db1", entry(2, same), entry(3, same))
	if err != nil || upTo != 3 {
		t.Error("what is known is passed over:", upTo, err)
	}
	_, err = keep("db1", entry(5, same))
	want(t, "a hole", err, ErrOutOfOrder)
	_, err = keep("db1", entry(4, same), entry(6, same))
	want(t, "a hole in a batch", err, ErrOutOfOrder)
	if upTo, err = keep("web2", entry(1, same)); err != nil || upTo != 1 {
		t.Error("web2 has nothing more to say:", upTo, err)
	}
	if got, err := s.Events(ctx, roster.Search{Host: "web2"}); err != nil || len(got) != 1 || got[0].Kind != roster.Malformed || got[0].Entry.Process != nil {
		t.Errorf("web2 spoke for db1: %+v, %v", got, err)
	}
	upTo, err = keep("db1", roster.Record{Seq: 4, Entry: []byte("garbage")})
	if err != nil || upTo != 4 {
		t.Error("garbage is kept:", upTo, err)
	}
	if upTo, err = s.KeepRecords(ctx, "db1", "o2", []roster.Record{entry(8, same)}); err != nil || upTo != 8 {
		t.Error("an outbox whose beginning is missing:", upTo, err)
	}
	all, err := s.Events(ctx, roster.Search{})
	must(t, err)
	var kinds []string
	for _, e := range all {
		if e.Host != "" {
			kinds = append(kinds, e.Kind)
		}
	}
	if diff := cmp.Diff([]string{"exec", "exec", "exec", "malformed", "malformed", "gap", "exec"}, kinds); diff != "" {
		t.Error(diff)
	}
}

// A host may say anything. What it says is kept as it came, and does not keep
// what comes after it from being kept.
func TestWhatNoDatabaseTakesAsText(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addHost(t, s, "db1")
	upTo, err := s.KeepRecords(ctx, "db1", "o", []roster.Record{
		entry(1, func(e *ledger.Entry) { e.Grant, e.Person, e.Text = "g-\x00", "a\x00na", "a\x00b" }),
		{Seq: 2, Entry: []byte("\xff\x00")},
		entry(3, func(e *ledger.Entry) { e.Host, e.Text = "db\x002", "\x00" }),
	})
	if err != nil || upTo != 3 {
		t.Fatalf("kept up to %d: %v", upTo, err)
	}
	got, err := s.Events(ctx, roster.Search{Person: "a\x00na"})
	if err != nil || len(got) != 1 || got[0].Entry.Text != "a\x00b" {
		t.Errorf("%+v, %v", got, err)
	}
	logged(t, s)
}

func TestChangedTells(t *testing.T) {
	s := fresh(t)
	before := s.Changed()
	var told []string
	s.OnSets(func(hosts []string) { told = hosts })
	addHost(t, s, "db1")
	select {
	case <-before:
	default:
		t.Error("nobody was woken")
	}
	if diff := cmp.Diff([]string{"db1"}, told); diff != "" {
		t.Error(diff)
	}
}

func TestKeyring(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	if v, _, err := s.Keyring(ctx); err != nil || v != 0 {
		t.Error(v, err)
	}
	must(t, s.PutKeyring(ctx, 1, []byte("a"), roster.Act{By: "root", At: noon}))
	must(t, s.PutKeyring(ctx, 2, []byte("b"), roster.Act{By: "root", At: noon}))
	want(t, "a version twice", s.PutKeyring(ctx, 2, []byte("c"), roster.Act{By: "root", At: noon}), roster.ErrExists)
	if v, e, err := s.Keyring(ctx); err != nil || v != 2 || string(e) != "b" {
		t.Error(v, e, err)
	}
	if said := told(t, s); said != "keyring 1 came into force\nkeyring 2 came into force\n" {
		t.Errorf("the record tells %q", said)
	}
	addHost(t, s, "db1")
	must(t, s.Resign(ctx, dsse.KeyID(public(grantKy)), noon)) // it is
	must(t, s.Resign(ctx, "another", noon))
	if st, err := s.State(ctx, "db1"); err != nil || st.Revision != 2 || string(st.Keyring) != "b" {
		t.Errorf("%+v, %v", st, err)
	}
}

// Of two servers one is ahead by minutes: what it has forgotten would count
// once more at the other.
func TestANonceIsKeptForServersThatAreBehind(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	until := noon.Add(5 * time.Minute)
	must(t, s.UseNonce(ctx, "a", "n", until, noon))
	ahead := noon.Add(9 * time.Minute)
	must(t, s.UseNonce(ctx, "a", "m", ahead.Add(time.Minute), ahead))
	want(t, "again, where it is earlier", s.UseNonce(ctx, "a", "n", until, noon.Add(time.Minute)), roster.ErrUsed)
	over := until.Add(keptOver + time.Second)
	must(t, s.UseNonce(ctx, "a", "o", over.Add(time.Minute), over))
	must(t, s.UseNonce(ctx, "a", "n", until, over)) // forgotten: the table does not grow for ever
}
