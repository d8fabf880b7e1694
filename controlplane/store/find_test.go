package store

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

func year(n int) time.Time { return time.Date(n, 12, 31, 0, 0, 0, 0, time.UTC) }

func TestSearch(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addHost(t, s, "db1")
	before, err := s.LastEvent(ctx)
	must(t, err)
	_, err = s.KeepRecords(ctx, "db1", "o", []roster.Record{
		entry(1, func(e *ledger.Entry) { e.Person, e.Grant = "ana", "g-a" }),
		entry(2, func(e *ledger.Entry) { e.Person, e.Grant = "ben", "g-b" }),
		entry(3, func(e *ledger.Entry) { e.Kind, e.Process, e.Text = ledger.Refused, nil, "no grant" }),
		entry(4, func(e *ledger.Entry) {
			e.Kind, e.Process.Path, e.Process.ExitCode = ledger.Exit, "/usr/lib/postgresql/15/bin/psql", 7
			e.At = noon.Add(-90 * 24 * time.Hour)
		}),
	})
	must(t, err)
	for _, c := range []struct {
		name string
		q    roster.Search
		want []uint64
	}{
		{"all", roster.Search{}, []uint64{1, 2, 3, 4}},
		{"person", roster.Search{Person: "ana"}, []uint64{1}},
		{"grant", roster.Search{Grant: "g-b"}, []uint64{2}},
		{"kind", roster.Search{Kind: "refused"}, []uint64{3}},
		{"host", roster.Search{Host: "web2"}, nil},
		{"words in any order and case", roster.Search{Words: []string{"SEQ_2", "echo"}}, []uint64{2}},
		{"percent is no pattern", roster.Search{Words: []string{"1%0"}}, nil},
		{"a zero byte is no letter", roster.Search{Words: []string{"ec\x00ho"}, Person: "\x00"}, nil},
		{"quotes are words", roster.Search{Words: []string{"' OR 1=1 --"}}, nil},
		{"since and until", roster.Search{Since: noon.Add(2), Until: noon.Add(3)}, []uint64{2}},
		{"what tells of a time long ago, and came late", roster.Search{Until: noon}, []uint64{4}},
		{"until a time that nanoseconds do not count to", roster.Search{Until: year(9999)}, []uint64{1, 2, 3, 4}},
		{"since such a one", roster.Search{Since: year(9999)}, nil},
		{"since one before they begin", roster.Search{Since: year(2)}, []uint64{1, 2, 3, 4}},
		{"until such a one", roster.Search{Until: year(2)}, nil},
		{"nothing tells of the future", roster.Search{Since: noon.Add(time.Hour)}, nil},
		{"a word is a whole one", roster.Search{Words: []string{"postgres"}}, nil},
		{"a word may go on", roster.Search{Words: []string{"/lib/postgres*"}}, []uint64{4}},
		{"a word does not begin in the middle", roster.Search{Words: []string{"*gresql", "gresql*"}}, nil},
		{"a star alone", roster.Search{Words: []string{"*"}}, nil},
		{"parts of a word stand side by side", roster.Search{Words: []string{"lib/15"}}, nil},
		{"a path in words", roster.Search{Words: []string{"/usr/lib/postgresql/15/bin"}}, []uint64{4}},
		{"no letter", roster.Search{Words: []string{"%"}}, nil},
		{"the path", roster.Search{Path: "/usr/lib/postgresql/15/bin/psql"}, []uint64{4}},
		{"under a path", roster.Search{Path: "/usr/lib/"}, []uint64{4}},
		{"not beside a path", roster.Search{Path: "/usr/li"}, nil},
		{"failed", roster.Search{Outcome: roster.Failed}, []uint64{4}},
		{"refused, by everything at once", roster.Search{Outcome: roster.Refused, Kind: "refused", Host: "db1", Words: []string{"grant"}}, []uint64{3}},
		{"a name is no pattern", roster.Search{Person: `ana" OR "p`}, nil},
		{"page", roster.Search{After: 1, Limit: 1}, []uint64{2}},
		{"for a stranger", roster.Search{For: "eve"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.q.After += before
			got, err := s.Events(ctx, c.q)
			must(t, err)
			var ids []uint64
			for _, e := range got {
				ids = append(ids, e.ID-before)
			}
			if diff := cmp.Diff(c.want, ids); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSearchByRole(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, rid)
	r, err := s.Change(ctx, rid, noon, approve)
	must(t, err)
	_, err = s.KeepRecords(ctx, "db1", "o", []roster.Record{entry(1, func(e *ledger.Entry) { e.Grant = r.Grant.ID })})
	must(t, err)
	got, err := s.Events(ctx, roster.Search{Role: r.Role})
	var kinds []string
	for _, v := range got {
		if v.Role != r.Role {
			t.Errorf("%+v", v)
		}
		kinds = append(kinds, v.Kind+v.Entry.Step)
	}
	if diff := cmp.Diff([]string{"decisionasked", "decisionapproved", "exec"}, kinds); err != nil || diff != "" {
		t.Error(diff, err)
	}
	if got, err = s.Events(ctx, roster.Search{Role: "other"}); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// A name is found in whichever form of Unicode it was typed, and is asked for.
func TestSearchInEachFormOfALetter(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addHost(t, s, "db1")
	var records []roster.Record
	for i, name := range []string{"Zürich-Café.sql", norm.NFD.String("Zürich-Café.sql"), "Zurich-Cafe.sql"} {
		records = append(records, entry(uint64(i)+1, func(e *ledger.Entry) { e.Process.Argv = []string{"psql", "-f", name} }))
	}
	_, err := s.KeepRecords(ctx, "db1", "o", records)
	must(t, err)
	for word, want := range map[string]int{"zürich": 2, "CAFÉ": 2, "zür*": 2, "zürich-café.sql": 2, "zurich": 1, "cafe*": 1} {
		for _, asked := range []string{word, norm.NFD.String(word)} {
			if got, err := s.Events(ctx, roster.Search{Kind: "exec", Words: []string{asked}}); err != nil || len(got) != want {
				t.Errorf("%+q finds %d, %v; want %d", asked, len(got), err, want)
			}
		}
	}
}

// Whatever is asked for, the index leads to all that has it.
func TestTheIndexMissesNothing(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addHost(t, s, "db1")
	texts := []string{
		"systemctl restart postgresql", "12abc 0x1f 1e5 1e55x -5 +7.5 1,000", "a/b//c.d.e:8080 user@host.example https://h.example/p?q=1",
		"Ünïcode straße naïve Ω 日本語 abc日本 ０１", "x'y\"z \\ % _ * ( ) : & | ! <-> AND OR NOT NEAR", strings.Repeat("a", 1700) + " tail", "\x00nul\x00 é e\u0301",
		"p=ana k=exec h=db1", "the of and is", "CamelCase UPPER lower", "٣٤ ², ½ ⅷ", "\u200b zero \ufeff width", "a_b a-b a.b a@b a=b",
	}
	var records []roster.Record
	for i, text := range texts {
		records = append(records, entry(uint64(i)+1, func(e *ledger.Entry) { e.Process.Argv = []string{text} }))
	}
	_, err := s.KeepRecords(ctx, "db1", "o", records)
	must(t, err)
	all, err := s.Events(ctx, roster.Search{Host: "db1"})
	must(t, err)
	rapid.Check(t, func(r *rapid.T) {
		text := []rune(rapid.SampledFrom(texts).Draw(r, "text"))
		from := rapid.IntRange(0, len(text)-1).Draw(r, "from")
		part := string(text[from : from+rapid.IntRange(1, min(40, len(text)-from)).Draw(r, "length")])
		q := roster.Search{Words: strings.Fields(part), Kind: "exec"}
		if n := len(q.Words); n > 0 && rapid.Bool().Draw(r, "open") {
			q.Words[n-1] += "*"
		}
		var want []uint64
		for _, v := range all {
			if !slices.ContainsFunc(q.Words, func(w string) bool { return !stands(w, words(v.Entry)) }) {
				want = append(want, v.ID)
			}
		}
		got, err := s.Events(ctx, q)
		if err != nil {
			r.Fatal(err)
		}
		var ids []uint64
		for _, v := range got {
			ids = append(ids, v.ID)
		}
		if !slices.Equal(ids, want) {
			r.Fatalf("%q: %v, want %v", q.Words, ids, want)
		}
	})
}

// stands reports whether a word that is asked for stands among words.
func stands(word, among string) bool {
	text, open := strings.CutSuffix(word, "*")
	all := tokens(text)
	if !open {
		all = append(all, "")
	}
	return len(tokens(text)) > 0 && strings.Contains(among+" ", " "+strings.Join(all, " "))
}

func TestHoursBefore1970(t *testing.T) {
	for ns, want := range map[int64]int64{-1: -1, -int64(time.Hour): -1, -int64(time.Hour) - 1: -2, 1: 0, int64(time.Hour): 1} {
		if got := hour(time.Unix(0, ns)); got != want {
			t.Errorf("%d ns: hour %d, want %d", ns, got, want)
		}
	}
}
