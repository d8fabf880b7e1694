package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/controlplane/policy"
	"curfew.internal/grant"
	"curfew.internal/wire/api"
)

func passkeyOf(seed byte) []byte {
	der, _ := x509.MarshalPKIXPublicKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)).Public()) // always marshals
	return der
}

const drafted = `fleet: acme
version: 1
expires: 2027-06-01T00:00:00Z
threshold: 2
owners: [OWNERS]
party: curfew.example
origins: [https://curfew.example]
approvals: 1
accounts: [postgres]
all: false
free: []
people:
- {name: ben, approves: true, keys: [{id: YmVu, public: BEN}]}
- {name: ana, approves: false, keys: [{id: YW5h, public: ANA}]}
`

// Two owners make keys, and sign what was drawn up; hosts then take it.
func TestRosterFromDraftToSigned(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	var out bytes.Buffer
	p := &program{out: &out, err: &out}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%v: %s", err, out.String())
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	var owners []string
	for _, name := range []string{"ida", "joe", "root"} {
		out.Reset()
		must(rosterOwnerCmd{at(name)}.Run(ctx, p))
		owners = append(owners, strings.TrimSpace(out.String()))
	}
	if err := (rosterOwnerCmd{at("ida")}).Run(ctx, p); err == nil {
		t.Error("a key was written over")
	}
	text := strings.NewReplacer("OWNERS", owners[0]+", "+owners[1], "BEN", base64.StdEncoding.EncodeToString(passkeyOf(1)), "ANA", base64.StdEncoding.EncodeToString(passkeyOf(2))).Replace(drafted)
	must(os.WriteFile(at("draft"), []byte(text), 0o600))
	must(rosterMakeCmd{at("draft"), at("bin")}.Run(ctx, p))
	roots, err := readOwner(owners[2])
	must(err)
	take := func() error {
		b, err := os.ReadFile(at("bin"))
		must(err)
		_, err = grant.Roster{}.Follow(b, "acme", []ed25519.PublicKey{roots})
		return err
	}
	for _, by := range []string{"ida", "root", "ida"} {
		must(rosterSignCmd{at("bin"), at(by)}.Run(ctx, p))
		if take() == nil {
			t.Error("a roster counts that one of two owners signed")
		}
	}
	out.Reset()
	must(rosterSignCmd{at("bin"), at("joe")}.Run(ctx, p))
	if !strings.Contains(out.String(), "2 of its 2 owners have signed it, 2 have to.") {
		t.Error(out.String())
	}
	must(take())
	out.Reset()
	must(rosterShowCmd{at("bin")}.Run(ctx, &program{out: &out, err: &bytes.Buffer{}}))
	want, err := readDraft([]byte(text))
	must(err)
	got, err := readDraft(out.Bytes())
	must(err)
	if diff := cmp.Diff(want.Bytes(), got.Bytes()); diff != "" {
		t.Errorf("what is shown is another: %s", diff)
	}
}

func TestDraftIsRefused(t *testing.T) {
	owner := ownerText(ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey))
	good := strings.NewReplacer("OWNERS", owner, "threshold: 2", "threshold: 1", "BEN", base64.StdEncoding.EncodeToString(passkeyOf(1)), "ANA", base64.StdEncoding.EncodeToString(passkeyOf(2))).Replace(drafted)
	if _, err := readDraft([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"an unknown key":            {"approvals: 1", "approvals: 1\nroot: yes"},
		"an owner of another form":  {owner, "AAAA"},
		"more signatures than keys": {"threshold: 1", "threshold: 2"},
		"a passkey of no kind":      {"id: YmVu, public: ", "id: YmVu, public: AAAA"},
		"no approval":               {"approvals: 1", "approvals: 0"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(good, change[0], change[1], 1)
			if bad == good {
				t.Fatal("nothing was changed")
			}
			if _, err := readDraft([]byte(bad)); err == nil {
				t.Error("taken")
			}
		})
	}
}

// What differs from the roster before is told, since the server says it.
func TestDraftTellsWhatIsNew(t *testing.T) {
	was := grant.Roster{Members: []grant.Member{
		{Name: "ana", Keys: []grant.Passkey{{ID: []byte("ana"), Public: passkeyOf(1)}, {ID: []byte("old"), Public: passkeyOf(2)}}},
		{Name: "ben", Approves: true, Keys: []grant.Passkey{{ID: []byte("ben"), Public: passkeyOf(3)}}},
		{Name: "gil", Approves: true, Keys: []grant.Passkey{{ID: []byte("gil"), Public: passkeyOf(4)}}},
	}}
	got, changes := people(was, []*api.PersonKeys{
		{Person: "ben", Keys: []*api.PublicKey{{Id: []byte("ben"), Public: passkeyOf(9)}}},
		{Person: "ana", Keys: []*api.PublicKey{{Id: []byte("ana"), Public: passkeyOf(1)}, {Id: []byte("new"), Public: passkeyOf(5)}}},
		{Person: "cy"},
	})
	want := []string{
		"new: passkey YmVu of ben", "new: passkey bmV3 of ana", "gone: passkey b2xk of ana", "gone: passkey YmVu of ben", "gone: passkey Z2ls of gil",
	}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Error(diff)
	}
	if len(got) != 2 || got[0].Name != "ana" || got[0].Approves || !got[1].Approves {
		t.Errorf("%+v", got)
	}
}

func TestFreeRoleIsTheOneThatHostsSee(t *testing.T) {
	p := policy.Policy{Roles: map[string]policy.Role{
		"look":   {Name: "look", RunAs: []string{"root"}, Commands: []grant.Command{{Path: "/usr/bin/id"}}},
		"signed": {Name: "signed", Signed: true},
	}}
	f, err := free(p, "look")
	if err != nil {
		t.Fatal(err)
	}
	r, err := readDraft([]byte(strings.NewReplacer(
		"OWNERS", ownerText(ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)), "threshold: 2", "threshold: 1",
		"BEN", base64.StdEncoding.EncodeToString(passkeyOf(1)), "ANA", base64.StdEncoding.EncodeToString(passkeyOf(2)),
		"free: []", "free: [{role: look, digest: "+f.Digest+"}]").Replace(drafted)))
	if err != nil {
		t.Fatal(err)
	}
	if r.Demands(p.Roles["look"].Grant()) {
		t.Error("the free role is demanded of")
	}
	for _, name := range []string{"signed", "unknown"} {
		if _, err := free(p, name); err == nil {
			t.Errorf("%s can be free", name)
		}
	}
}
