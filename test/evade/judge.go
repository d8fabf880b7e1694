package evade

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// An Entry is one of the record as `curfew audit search` prints it.
type Entry struct {
	Kind, Grant, Person, Text, Object, Session, Lost string
	Seq                                              string `json:"session_seq"`
	Process                                          struct {
		Pid, Links    int
		Path, Script  string
		Comm          string
		Argv, Env     []string
		Device, Inode string
	}
}

// line is an entry on one line, for patterns.
func (e Entry) line() string {
	p := e.Process
	var words strings.Builder
	for _, w := range p.Argv {
		fmt.Fprintf(&words, " %q", w)
	}
	return fmt.Sprintf("%s %s%s %s:%s links=%d script=%s env=%q object=%s %s", e.Kind, p.Path, words.String(), p.Device, p.Inode, p.Links, p.Script, p.Env, e.Object, e.Text)
}

// judge says of each way what the record has of it, and holds the docs to it.
func (s Session) judge(t testing.TB, all []Entry) {
	t.Helper()
	want := Outcomes(t, "../../docs/evasion.md")
	touch := ""
	for i, e := range evasions {
		if e.name == s.Refused {
			if !slices.ContainsFunc(all, func(x Entry) bool {
				return x.Kind == "refused" && x.Person == s.Person.Name && strings.Contains(x.Text, "guarded")
			}) {
				t.Errorf("%s: nothing says that it was refused", e.name)
			}
			continue
		}
		got := found(all, e, s.Person.Name, made(i), &touch)
		t.Logf("%-50s %s", e.name, got)
		if got != want[e.name] {
			t.Errorf("%s: %q; docs/evasion.md says %q", e.name, got, want[e.name])
		}
	}
	if len(want) != len(evasions) {
		t.Errorf("docs/evasion.md has %d ways, not %d", len(want), len(evasions))
	}
}

// found is what the entries of the session say of a way.
func found(all []Entry, e evasion, person, file string, touch *string) string {
	if e.seen == "" {
		e.seen = plain
	}
	pattern := func(p string) *regexp.Regexp {
		return regexp.MustCompile(strings.NewReplacer("FILE", file, "TOUCH", regexp.QuoteMeta(*touch)).Replace(p))
	}
	seen := pattern(e.seen)
	about := map[int]bool{} // processes that were given the file's name
	for _, x := range all {
		if x.Session == "" || x.Person != person {
			continue
		}
		if seen.MatchString(x.line()) {
			if *touch == "" {
				*touch = x.Process.Device + ":" + x.Process.Inode
			}
			return "seen and attributed"
		}
		if x.Kind == "exec" && slices.ContainsFunc(x.Process.Argv, func(w string) bool { return strings.Contains(w, file) }) {
			about[x.Process.Pid] = true
		}
	}
	for _, x := range all {
		if e.handed == "" && about[x.Process.Pid] && strings.Contains(x.Text, "handed over to") || e.handed != "" && pattern(e.handed).MatchString(x.line()) {
			return "handed over, seen"
		}
	}
	return "not seen"
}

// raced: of programs whose argument, or whose file, another thread changed
// meanwhile the record says what the kernel took: what they did shows that.
func raced(t testing.TB, all []Entry, ran string) {
	t.Helper()
	races, turns := map[string]bool{}, map[string]string{}
	for _, e := range all {
		if e.Kind != "exec" || len(e.Process.Argv) != 2 {
			continue
		}
		switch name := filepath.Base(e.Process.Argv[1]); {
		case strings.HasPrefix(name, "race-"):
			races[name] = true
		case strings.HasPrefix(name, "turn-"):
			turns[name] = e.Process.Path
		}
	}
	left := strings.Fields(ran)
	for name := range races {
		if !slices.Contains(left, name) {
			t.Errorf("the record has touch %s, and it made no such file", name)
		}
	}
	for name, path := range turns {
		if is := slices.Contains(left, name); is != (path == "/usr/bin/touch") {
			t.Errorf("the record has %s for %s; it made the file: %v", path, name, is)
		}
	}
	if len(races) != 40 || len(turns) != 40 {
		t.Errorf("%d and %d of 40 programs are in the record", len(races), len(turns))
	}
}

// safeToRead: what she put into arguments does nothing to the terminal of
// whoever reads the record.
func (s Session) safeToRead(t testing.TB) {
	t.Helper()
	for _, args := range [][]string{{"audit", "search", "--limit", "0", "--grant", s.Grant}, {"timeline", s.Grant}} {
		out, _, err := s.Fleet.People["cleo"].Run(t.Context(), "", args...)
		if err != nil || !strings.Contains(out, "/run/evade/x") || strings.ContainsAny(out, "\x1b\a\r") {
			t.Errorf("%s: %v, with escape characters: %v", args[0], err, strings.ContainsAny(out, "\x1b\a\r"))
		}
	}
}

// Outcomes reads a page's table of ways and what becomes of them.
func Outcomes(t testing.TB, file string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(line, "|")
		if len(cells) == 5 && !strings.HasPrefix(cells[1], "-") && strings.TrimSpace(cells[1]) != "way" {
			rows[strings.TrimSpace(cells[1])] = strings.TrimSpace(cells[2])
		}
	}
	return rows
}
