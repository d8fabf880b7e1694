package store

import (
	"crypto/sha256"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

const tapeID = "00000000000000ab-01020304"

func statement(number uint64, before []byte) ledger.Segment {
	sum := sha256.Sum256([]byte{byte(number)})
	return ledger.Segment{
		Fleet: "lab", Host: "db1", Boot: "b", Grant: "g-aaaaaaaaaaaaaaaa", Person: "ana", Session: 0xab, Terminal: tapeID, Number: number,
		From: noon, To: noon.Add(time.Duration(number) * time.Second), Digest: sum[:], Size: 10, Before: before, Lost: number - 1,
	}
}

// there says that a segment's file is.
func there() error { return nil }

func TestASegmentIsKeptOnceAndInOrder(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, "r-aaaaaaaaaaaaaaaa")
	_, err := s.Change(ctx, "r-aaaaaaaaaaaaaaaa", noon, approve)
	must(t, err)
	first := statement(1, nil)
	second := statement(2, first.Hash())
	end := statement(3, second.Hash())
	end.Digest, end.Size, end.End = nil, 0, "the shell ended"
	keep := func(v ledger.Segment) error {
		envelope := v.Seal(hostKey)
		got, err := s.Statement(ctx, "db1", envelope)
		if err == nil {
			err = s.KeepSegment(ctx, got, envelope, 7, there)
		}
		return err
	}
	want(t, "the second before the first", keep(second), ErrStatement)
	must(t, keep(first))
	must(t, keep(second))
	must(t, keep(second)) // sent twice
	other := second
	other.Size = 11
	want(t, "another in its place", keep(other), ErrStatement)
	must(t, keep(end))
	for number, want := range map[uint64]bool{2: true, 4: false} {
		v := statement(number, nil)
		if taken, kept, err := s.Taken(ctx, v); err != nil || taken != 21 || kept != want {
			t.Errorf("segment %d: %d taken, kept %v, %v", number, taken, kept, err)
		}
	}

	found, err := s.Terminals(ctx, roster.TerminalSearch{ID: "00000000000000ab", Limit: 10})
	must(t, err)
	if len(found) != 1 || found[0].Segments != 2 || found[0].Bytes != 20 || found[0].Lost != 3 || found[0].Why != "the shell ended" ||
		!found[0].Ended.Equal(end.To) || found[0].Session != 0xab || found[0].Role == "" {
		t.Errorf("%+v", found)
	}
	all, err := s.Segments(ctx, "db1", tapeID, 1, 10)
	must(t, err)
	if len(all) != 2 || all[0].Number != 2 || len(all[1].Digest) != 0 || string(all[0].Statement) != string(second.Seal(hostKey)) {
		t.Errorf("%+v", all)
	}
	for name, c := range map[string]struct {
		q    roster.TerminalSearch
		many int
	}{
		"by its id": {roster.TerminalSearch{ID: tapeID}, 1}, "another id": {roster.TerminalSearch{ID: "x"}, 0}, "by grant": {roster.TerminalSearch{Grant: "g-aaaaaaaaaaaaaaaa"}, 1},
		"of somebody else": {roster.TerminalSearch{Person: "ben"}, 0}, "on another host": {roster.TerminalSearch{Host: "db2"}, 0},
		"before": {roster.TerminalSearch{Until: noon}, 0}, "since": {roster.TerminalSearch{Since: noon}, 1},
		"for herself": {roster.TerminalSearch{For: "ana"}, 1}, "for who approved": {roster.TerminalSearch{For: "ben"}, 1}, "for a stranger": {roster.TerminalSearch{For: "eve"}, 0},
	} {
		c.q.Limit = 10
		if found, err := s.Terminals(ctx, c.q); err != nil || len(found) != c.many {
			t.Errorf("%s: %v %v", name, found, err)
		}
	}
}

// What one host says of its recordings keeps nobody from seeing others'.
func TestNoHostLosesMoreThanARowHolds(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, "r-aaaaaaaaaaaaaaaa")
	_, err := s.Change(ctx, "r-aaaaaaaaaaaaaaaa", noon, approve)
	must(t, err)
	var before []byte
	for n := range uint64(5) {
		v := statement(n+1, before)
		v.Lost = []uint64{5, 1<<63 + 5, 1<<64 - 1, 1<<63 - 1, 7}[n]
		must(t, s.KeepSegment(ctx, v, v.Seal(hostKey), 7, there))
		before = v.Hash()
		found, err := s.Terminals(ctx, roster.TerminalSearch{Limit: 10})
		must(t, err)
		if len(found) != 1 || n > 0 && found[0].Lost < mostLost {
			t.Errorf("%+v", found)
		}
	}
}

func TestAStatementIsAboutItsHostAlone(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, "r-aaaaaaaaaaaaaaaa")
	_, err := s.Change(ctx, "r-aaaaaaaaaaaaaaaa", noon, approve)
	must(t, err)
	for name, change := range map[string]func(*ledger.Segment){
		"another host": func(v *ledger.Segment) { v.Host = "db2" }, "another fleet": func(v *ledger.Segment) { v.Fleet = "x" },
		"no grant of ours": func(v *ledger.Segment) { v.Grant = "g-bbbbbbbbbbbbbbbb" }, "another's grant": func(v *ledger.Segment) { v.Person = "ben" },
		"a name that is a path": func(v *ledger.Segment) { v.Terminal = "../../../../etc/passwd" },
	} {
		v := statement(1, nil)
		change(&v)
		_, err := s.Statement(ctx, "db1", v.Seal(hostKey))
		want(t, name, err, ErrStatement)
	}
	_, err = s.Statement(ctx, "db1", statement(1, nil).Seal(grantKy))
	want(t, "another key", err, ErrStatement)
}

func TestASessionThatIsEndedIsToldToItsHost(t *testing.T) {
	s, ctx := scene(t), t.Context()
	var told []string
	s.OnSets(func(hosts []string) { told = append(told, hosts...) })
	v := roster.Terminal{Host: "db1", Session: 1<<63 + 5, Person: "ana", Grant: "g-aaaaaaaaaaaaaaaa"}
	for range 2 { // the first word counts
		must(t, s.EndHostSession(ctx, v, roster.Act{By: "ben", At: noon}, "wrong database"))
	}
	got, err := s.EndedSessions(ctx, "db1", noon)
	must(t, err)
	if len(got) != 1 || got[v.Session] != "ben" || len(told) == 0 || told[0] != "db1" {
		t.Errorf("%v, told %v", got, told)
	}
	if later, err := s.EndedSessions(ctx, "db1", noon.Add(time.Second)); err != nil || len(later) != 0 {
		t.Errorf("%v %v", later, err)
	}
	acts, err := s.Events(ctx, roster.Search{Kind: ledger.Admin.String(), Words: []string{"wrong"}})
	must(t, err)
	if len(acts) == 0 || acts[0].Entry.Person != "ben" {
		t.Errorf("%+v", acts)
	}
}
