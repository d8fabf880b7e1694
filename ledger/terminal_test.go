package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/dsse"
)

// tape is a recording of three segments and an end, as its host signed it.
func tape() []Segment {
	var all []Segment
	for n := range uint64(4) {
		s := Segment{
			Fleet: "example", Host: "db1", Boot: "b", Grant: ended().Grant, Person: "ana", Session: 9, Terminal: "t-1", Number: n + 1,
			From: noon, To: noon.Add(time.Duration(n) * time.Second), Lost: n,
		}
		if n < 3 {
			sum := sha256.Sum256([]byte{byte(n)})
			s.Digest, s.Size = sum[:], 1
		} else {
			s.End = "the shell ended"
		}
		if n > 0 {
			s.Before = all[n-1].Hash()
		}
		all = append(all, s)
	}
	return all
}

func word(s Segment) Entry {
	return Entry{Kind: Terminal, At: s.To, Host: "db1", Grant: s.Grant, Person: s.Person, Session: s.Session, Receipt: s.Seal(key("host"))}
}

func TestSegment(t *testing.T) {
	host := key("host").Public().(ed25519.PublicKey)
	var before *Segment
	for i, s := range tape() {
		got, err := OpenSegment(s.Seal(key("host")), host)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, got); diff != "" || !got.Follows(before) {
			t.Errorf("segment %d: %s", s.Number, diff)
		}
		if s.End == "" && (!s.Holds([]byte{byte(i)}) || s.Holds([]byte{9}) || s.Holds(nil)) || s.End != "" && (!s.Holds(nil) || s.Holds([]byte{1})) {
			t.Errorf("segment %d does not know its data", s.Number)
		}
		before = &got
	}
	last := tape()[3]
	if (Segment{Terminal: "t-1", Host: "db1", Number: 5, Before: last.Hash()}).Follows(&last) {
		t.Error("something follows the end")
	}
	if _, err := OpenSegment(last.Seal(key("other")), host); err == nil {
		t.Error("another host's key vouched for it")
	}
	for name, change := range map[string]func(*Segment){
		"no number": func(s *Segment) { s.Number = 0 }, "no recording": func(s *Segment) { s.Terminal = "" },
		"half a digest": func(s *Segment) { s.Digest = s.Digest[:5] }, "neither data nor an end": func(s *Segment) { s.Digest, s.Size = nil, 0 },
	} {
		s := tape()[0]
		change(&s)
		if _, err := OpenSegment(dsse.Sign(SegmentType, s.Bytes(), key("host")).Bytes(), host); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// What is missing of a recording, or does not go on from what was before, is
// found; what was told twice in the same bytes is not.
func TestVerifyLooksAtTerminals(t *testing.T) {
	other := tape()
	other[1].Lost = 99 // signed too, and not what the third goes on from
	for _, c := range []struct {
		name  string
		told  []Segment
		find  string
		open  int
		begin bool // the login is there
	}{
		{"whole", tape(), "", 0, true},
		{"it goes on", tape()[:2], "", 1, true},
		{"told twice", slices.Insert(tape(), 2, tape()[1]), "", 0, true},
		{"one is missing", slices.Delete(tape(), 1, 2), "segment 3 of terminal t-1 does not go on from segment 1", 0, true},
		{"another in its place", slices.Replace(tape(), 1, 2, other[1]), "segment 3 of terminal t-1 does not go on from segment 2", 0, true},
		{"the first are missing", tape()[2:], "segments 1 to 2 of terminal t-1 are missing", 0, true},
		{"it began before what is here", tape()[2:], "", 0, false},
		{"out of order", []Segment{tape()[1], tape()[0]}, "does not go on", 1, false},
	} {
		l := newLog()
		seq := uint64(0)
		tell := func(e Entry) { seq++; l.tell(seq, e) }
		if c.begin {
			tell(Entry{Kind: Login, At: noon, Host: "db1", Grant: ended().Grant, Session: 9})
		}
		for _, s := range c.told {
			tell(word(s))
		}
		tell(Entry{Kind: Terminal, At: noon, Host: "db1", Grant: ended().Grant, Session: 9, Text: "a session without a terminal"})
		r := Verify(l.export(0, upTo(seq)...).Bytes(), Trust{Key: l.key})
		var found []string
		for _, f := range r.Findings {
			found = append(found, f.String())
		}
		text := strings.Join(found, "\n")
		if (c.find == "") != (text == "") || !strings.Contains(text, c.find) || r.Terminals != 1 || r.Open != c.open {
			t.Errorf("%s: %d terminals, %d open: %s", c.name, r.Terminals, r.Open, text)
		}
	}
}

// A host's word is about what its entry is about, and signed by its key.
func TestVerifyChecksWhoSpokeOfATerminal(t *testing.T) {
	for name, change := range map[string]func(*Entry, *Segment){
		"another session": func(e *Entry, _ *Segment) { e.Session = 8 },
		"another person":  func(e *Entry, _ *Segment) { e.Person = "ben" },
		"another host":    func(_ *Entry, s *Segment) { s.Host = "db2" },
		"another fleet":   func(_ *Entry, s *Segment) { s.Fleet = "elsewhere" },
	} {
		s := tape()[0]
		e := word(s)
		change(&e, &s)
		e.Receipt = s.Seal(key("host"))
		l := newLog()
		l.tell(1, e)
		if r := Verify(l.export(0, 1).Bytes(), Trust{Key: l.key}); len(r.Findings) != 1 {
			t.Errorf("%s: %v", name, r.Findings)
		}
	}
	e := word(tape()[0])
	e.Receipt = tape()[0].Seal(key("other"))
	l := newLog()
	l.tell(1, e)
	if r := Verify(l.export(0, 1).Bytes(), Trust{Key: l.key}); len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Text, "not signed by the host's key") {
		t.Errorf("another's signature: %v", r.Findings)
	}
}
