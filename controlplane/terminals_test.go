package controlplane

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/fleet"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
)

// granted has a host in the town on which ada has a grant.
func (w *town) granted(t *testing.T, key ed25519.PrivateKey) *grant.Grant {
	t.Helper()
	ctx, s, now := t.Context(), w.server.store, time.Now().UTC().Truncate(time.Second)
	token := roster.JoinToken{Hash: sha256.Sum256([]byte("secret")), Expires: now.Add(time.Hour), By: "ada"}
	must(t, s.PutJoinToken(ctx, token, now))
	_, err := s.UseJoinToken(ctx, token.Hash, roster.Host{Name: "db1", ReceiptKey: key.Public().(ed25519.PublicKey), Identity: "i"}, now)
	must(t, err)
	r := roster.Request{
		Asked: roster.Asked{
			Role: "db", Hosts: []string{"db1"}, Duration: time.Hour, Reason: "disk full", Factor: "totp", Policy: "v1",
			Resolved: grant.Role{Name: "db", RunAs: []string{"root"}, Commands: []grant.Command{{Path: "/bin/true"}}},
		},
		ID: "r-aaaaaaaaaaaaaaaa", Person: "ada", Key: "k", Digest: make([]byte, 32), AskedAt: now, LapsesAt: now.Add(time.Hour), State: "asked",
	}
	_, err = s.Ask(ctx, r, now, roster.Change{Steps: []roster.Decision{{At: now, What: "asked", Person: "ada"}}})
	must(t, err)
	g := &grant.Grant{
		ID: "g-aaaaaaaaaaaaaaaa", Fleet: "lab", Person: grant.Person{Name: "ada", UID: grant.UIDMin}, Role: r.Resolved, Hosts: r.Hosts,
		NotBefore: now, NotAfter: now.Add(time.Hour), Request: r.ID, Digest: r.Digest, Reason: r.Reason, Asked: grant.Evidence{Person: "ada", Factor: "totp", At: now},
	}
	_, err = s.Change(ctx, r.ID, now, func(roster.Request) (roster.Change, error) {
		return roster.Change{State: "issued", Grant: g, Steps: []roster.Decision{{At: now, What: "signed"}}}, nil
	})
	must(t, err)
	return g
}

// taped hands in the next segment of a recording: bytes that nothing packs.
func taped(t *testing.T, s *terminals, g *grant.Grant, key ed25519.PrivateKey, last *ledger.Segment) (statement, packed []byte, err error) {
	t.Helper()
	data := make([]byte, 1000)
	_, err = rand.Read(data)
	must(t, err)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err = z.Write(data)
	must(t, errors.Join(err, z.Close()))
	sum := sha256.Sum256(data)
	v := ledger.Segment{
		Fleet: "lab", Host: "db1", Grant: g.ID, Person: "ada", Session: 0xab, Terminal: "00000000000000ab-01", Number: last.Number + 1,
		From: g.NotBefore, To: g.NotBefore, Digest: sum[:], Size: uint64(len(data)),
	}
	if last.Number > 0 {
		v.Before = last.Hash()
	}
	statement, packed = v.Seal(key), b.Bytes()
	if err = s.KeepTerminal(t.Context(), "db1", statement, packed); err == nil {
		*last = v
	}
	return statement, packed, err
}

// A host whose recordings take all that they may can hand in no more of them,
// and goes on as it did otherwise.
func TestRecordingsOfAHostHaveAQuota(t *testing.T) {
	w := newTown(t)
	w.start(t)
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	g := w.granted(t, key)
	s := w.server.terminals
	if s.quota != 32<<30 {
		t.Errorf("without a word it is %d", s.quota)
	}
	s.quota = 2500
	var last ledger.Segment
	_, _, err := taped(t, s, g, key, &last)
	must(t, err)
	statement, packed, err := taped(t, s, g, key, &last)
	must(t, err)
	_, _, err = taped(t, s, g, key, &last)
	if !errors.Is(err, fleet.ErrRefused) || !strings.Contains(err.Error(), "may take 2500 (terminal_quota in server.yaml)") || strings.Contains(err.Error(), "\n") {
		t.Fatalf("the third: %v", err)
	}
	must(t, s.KeepTerminal(t.Context(), "db1", statement, packed)) // what it did not hear of
	end := ledger.Segment{
		Fleet: "lab", Host: "db1", Grant: g.ID, Person: "ada", Session: 0xab, Terminal: last.Terminal, Number: 3, From: g.NotBefore, To: g.NotBefore,
		Before: last.Hash(), End: "the shell ended",
	}
	must(t, s.KeepTerminal(t.Context(), "db1", end.Seal(key), nil)) // it takes no room
	_, err = w.server.store.KeepRecords(t.Context(), "db1", "o", []roster.Record{{Seq: 1, Entry: ledger.Entry{Kind: ledger.Agent, At: g.NotBefore, Host: "db1"}.Bytes()}})
	must(t, err)
	s.quota = 1 << 20
	if taken, _, err := s.Taken(t.Context(), last); err != nil || taken < 2000 || taken > 2500 {
		t.Errorf("%d taken, %v", taken, err)
	}
}

// Whoever asks for recordings with the record gets what they show, or what became
// of it.
func TestRecordingsAreExportedWithTheRecord(t *testing.T) {
	w := newTown(t)
	w.start(t)
	ada := w.enrol(t)
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	g, s := w.granted(t, key), w.server.terminals
	var last ledger.Segment
	var records []roster.Record
	for seq := range uint64(2) {
		statement, _, err := taped(t, s, g, key, &last)
		must(t, err)
		e := ledger.Entry{Kind: ledger.Terminal, At: g.NotBefore, Host: "db1", Grant: g.ID, Person: "ada", Session: last.Session, Receipt: statement}
		records = append(records, roster.Record{Seq: seq + 1, Entry: e.Bytes()})
	}
	_, err := s.KeepRecords(t.Context(), "db1", "o", records)
	must(t, err)
	exported := func(recordings bool) ledger.Report {
		t.Helper()
		part, err := ada.ExportRecord(t.Context(), &api.ExportRecordRequest{Grant: g.ID, Recordings: recordings})
		must(t, err)
		defer part.Close()
		var file []byte
		for part.Receive() {
			file = append(file, part.Msg().Data...)
		}
		must(t, part.Err())
		c, err := ada.GetCheckpoint(t.Context(), &api.GetCheckpointRequest{})
		must(t, err)
		log, err := ledger.ParseKey(c.Key)
		must(t, err)
		return ledger.Verify(file, ledger.Trust{Key: log})
	}
	if r := exported(false); len(r.Findings) > 0 || r.Terminals != 1 || r.Tapes != 0 {
		t.Errorf("without: %+v", r)
	}
	if r := exported(true); len(r.Findings) > 0 || r.Tapes != 2 || !strings.HasSuffix(r.Asked, "with recordings") {
		t.Errorf("with: %+v", r)
	}
	must(t, s.Remove(last.Digest))
	if r := exported(true); len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Text, "segment 2 of terminal "+last.Terminal+" is missing") || r.Tapes != 1 {
		t.Errorf("a file is gone: %+v", r)
	}
	must(t, s.ForgetTerminals(t.Context(), "db", g.NotAfter.Add(time.Hour), g.NotAfter.Add(time.Hour)))
	if r := exported(true); len(r.Findings) > 0 || r.Tapes != 0 || len(r.Erased) != 1 || r.Erased[0].To != r.Erased[0].From+1 {
		t.Errorf("its time is over: %+v", r)
	}
}

// What another recording shows as well stays as long as that does.
func TestAFileThatTwoRecordingsShareStays(t *testing.T) {
	w := newTown(t)
	w.start(t)
	ctx, key := t.Context(), ed25519.NewKeyFromSeed(make([]byte, 32))
	g, s := w.granted(t, key), w.server.terminals
	var kept ledger.Segment
	_, packed, err := taped(t, s, g, key, &kept)
	must(t, err)
	over := g.NotAfter.Add(time.Hour)
	later := kept
	later.Terminal, later.To = "00000000000000ab-02", over.Add(time.Hour)
	must(t, s.KeepTerminal(ctx, "db1", later.Seal(key), packed))
	for _, c := range []struct {
		before time.Time
		there  bool
	}{{over, true}, {over.Add(2 * time.Hour), false}} {
		must(t, s.ForgetTerminals(ctx, "db", c.before, c.before))
		must(t, s.clear(ctx))
		if _, err := s.Get(kept.Digest); (err == nil) != c.there {
			t.Errorf("at %v: %v", c.before, err)
		}
	}
	if all, err := s.Erasing(ctx); err != nil || len(all) > 0 {
		t.Errorf("%v, %v", all, err)
	}
}
