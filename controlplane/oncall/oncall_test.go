package oncall

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
)

var noon = time.Date(2027, 1, 5, 12, 0, 0, 0, time.UTC)

// handClock shows what it is set to.
type handClock struct{ now time.Time }

func (c *handClock) Now() clock.Reading { return clock.Reading{Wall: c.now} }

func (*handClock) After(time.Duration) <-chan time.Time { return nil }

const ben = `{"rotations": {"primary": [{"person": "ben", "from": "2027-01-04T09:00:00+01:00", "until": "2027-01-11T09:00:00+01:00"}]}}`

func bens() map[string][]roster.Turn {
	return map[string][]roster.Turn{"primary": {{
		Person: "ben", From: time.Date(2027, 1, 4, 8, 0, 0, 0, time.UTC), Until: time.Date(2027, 1, 11, 8, 0, 0, 0, time.UTC),
	}}}
}

func TestParse(t *testing.T) {
	turn := func(text string) string { return `{"rotations": {"primary": [` + text + `]}}` }
	for _, c := range []struct {
		name, text string
		want       map[string][]roster.Turn
		err        string
	}{
		{"JSON", ben, bens(), ""},
		{"YAML, of whose times some are not in quotes", "rotations:\n  primary:\n  - {person: ben, from: 2027-01-04T08:00:00Z, until: '2027-01-11T08:00:00Z'}\n", bens(), ""},
		{"a rotation that has nobody", `{"rotations": {"primary": []}}`, map[string][]roster.Turn{"primary": {}}, ""},
		{"no rotation is an answer, too", `{"rotations": {}}`, map[string][]roster.Turn{}, ""},
		{"nothing is none", "", nil, "it is empty"},
		{"words are none", "ben", nil, "cannot be read"},
		{"another form", `{"oncall": "ben"}`, nil, "cannot be read"},
		{"another key in a turn", turn(`{"person": "ben", "from": "2027-01-04T08:00:00Z", "until": "2027-01-11T08:00:00Z", "level": 1}`), nil, "cannot be read"},
		{"two documents", ben + "\n---\n" + ben, nil, "more than one document"},
		{"a turn without an end", turn(`{"person": "ben", "from": "2027-01-04T08:00:00Z"}`), nil, "turn 1, of ben: write from and until"},
		{"a day is no time", turn(`{"person": "ben", "from": "2027-01-04", "until": "2027-01-05"}`), nil, "write from and until"},
		{"a turn that ends as it begins", turn(`{"person": "ben", "from": "2027-01-04T08:00:00Z", "until": "2027-01-04T08:00:00Z"}`), nil, "it ends before it begins"},
		{"nobody's name", turn(`{"person": "ben@example.org", "from": "2027-01-04T08:00:00Z", "until": "2027-01-11T08:00:00Z"}`), nil, "a name has 1 to 31"},
		{"root", turn(`{"person": "root", "from": "2027-01-04T08:00:00Z", "until": "2027-01-11T08:00:00Z"}`), nil, "belongs to the system"},
		{"one bad turn, and the others count no more", strings.Replace(ben, "[{", `[{"person": "", "from": "", "until": ""}, {`, 1), nil, "turn 1"},
		{"too much", ben + strings.Repeat(" ", maxBytes), nil, "over 1048576 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse([]byte(c.text))
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Fatalf("%v, want %q", err, c.err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What is read has proper people and times, whatever came.
func FuzzParse(f *testing.F) {
	f.Add([]byte(ben))
	f.Add([]byte("rotations: {a: [{person: b, from: 2027-01-04T08:00:00Z, until: 2028-01-04T08:00:00Z}]}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := Parse(text)
		if (err == nil) != (all != nil) {
			t.Fatalf("%v, and %v", all, err)
		}
		for name, turns := range all {
			for _, turn := range turns {
				if name == "" || turn.Person == "" || !turn.From.Before(turn.Until) {
					t.Errorf("%q: %+v", name, turn)
				}
			}
		}
	})
}

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAnAnswerCountsForATime(t *testing.T) {
	file, k, log, told := write(t, "oncall.json", ben, 0o600), &handClock{noon}, &strings.Builder{}, 0
	s := New(&Config{File: file}, k, slog.New(slog.NewTextHandler(log, nil)), func() { told++ })
	says := func(want, trouble string) {
		t.Helper()
		c, until := s.Calls()
		counts := len(c.Rotations) > 0
		if counts != (want == "") || !strings.Contains(c.Why, want) || counts != k.now.Before(until) || !strings.Contains(s.Trouble(), trouble) || (trouble == "") != (s.Trouble() == "") {
			t.Errorf("%v: %+v until %v; %q", k.now, c, until, s.Trouble())
		}
	}
	says("was not asked yet", "")
	s.Ask(t.Context())
	says("", "")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	k.now = noon.Add(4 * time.Minute)
	s.Ask(t.Context())
	s.Ask(t.Context())
	says("", "no such file")
	k.now = noon.Add(5*time.Minute - 1)
	says("", "no such file")
	k.now = noon.Add(5 * time.Minute)
	says("counted until 2027-01-05 12:05 UTC", "no such file")
	if n := strings.Count(log.String(), "alert: "); n != 1 {
		t.Errorf("%d alerts: %s", n, log)
	}
	if err := os.WriteFile(file, []byte(ben[:len(ben)-1]), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Ask(t.Context())
	says("counted until", "cannot be read")
	if err := os.WriteFile(file, []byte(ben), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Ask(t.Context())
	says("", "")
	if !strings.Contains(log.String(), "answers again") || told != 5 {
		t.Errorf("told %d times: %s", told, log)
	}
}

func TestNobodyIsAsked(t *testing.T) {
	s := New(nil, &handClock{noon}, slog.Default(), nil)
	s.Ask(t.Context())
	if c, _ := s.Calls(); len(c.Rotations) > 0 || !strings.Contains(c.Why, "names no on-call source") || s.Run(t.Context()) != nil {
		t.Errorf("%+v", c)
	}
}

func TestCommand(t *testing.T) {
	t.Setenv("CURFEW_SECRET", "of the server")
	for _, c := range []struct {
		name, script string
		config       Config
		want, err    string
	}{
		{"its output is the answer", "cat <<'END'\n" + ben + "\nEND\n", Config{}, "ben", ""},
		{
			"it finds what the configuration gives it, and nothing of the server's",
			`[ "$(env | grep -v '^PWD=\|^_=\|^SHLVL=' | sort | tr '\n' ' ')" = 'KEY_FILE=/etc/key PATH=/usr/local/bin:/usr/bin:/bin ' ] && [ "$PWD" = / ] && [ "$1 $2" = '-r $HOME;id' ] || exit 3
echo '` + ben + `'`,
			Config{Command: []string{"", "-r", "$HOME;id"}, Environment: map[string]string{"KEY_FILE": "/etc/key"}},
			"ben", "",
		},
		{"nothing is on its input", "[ -z \"$(cat)\" ] && echo '" + ben + "'", Config{}, "ben", ""},
		{"it fails", "echo '" + ben + "'; printf 'no\\033[31mkey\\nmore' >&2; exit 1", Config{}, "", "exit status 1: no [31mkey"},
		{"it says too much", "head -c 2000000 /dev/zero", Config{}, "", "more than 1048576 bytes"},
		{"it says something else", "echo hello", Config{}, "", "cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.Command = append([]string{write(t, "who", "#!/bin/sh\n"+c.script+"\n", 0o700)}, c.config.Command[min(1, len(c.config.Command)):]...)
			s := New(&c.config, &handClock{noon}, slog.New(slog.DiscardHandler), func() {})
			s.Ask(t.Context())
			got, _ := s.Calls()
			if (c.want != "") != (len(got.Rotations["primary"]) == 1) || !strings.Contains(s.Trouble(), c.err) || (c.err == "") != (s.Trouble() == "") || strings.ContainsFunc(s.Trouble(), func(r rune) bool { return r < ' ' }) {
				t.Errorf("%+v; %q", got, s.Trouble())
			}
		})
	}
}

// A command that does not end is ended, with what it started.
func TestCommandThatHangs(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "begun")
	c := Config{Command: []string{write(t, "who", "#!/bin/sh\necho $$ > "+mark+"\nsleep 1000 &\nwait\n", 0o700)}}
	s := New(&c, &handClock{noon}, slog.New(slog.DiscardHandler), func() {})
	s.Ask(t.Context())
	if !strings.Contains(s.Trouble(), "not done within 10s") {
		t.Error(s.Trouble())
	}
	pid, err := os.ReadFile(mark)
	if err != nil {
		t.Fatal(err)
	}
	if left := inGroup(t, strings.TrimSpace(string(pid))); left != "" {
		t.Error("left running:", left)
	}
}

// inGroup are the processes of a group that live.
func inGroup(t *testing.T, group string) string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	left := ""
	for _, name := range all {
		text, err := os.ReadFile(name)
		_, rest, found := strings.Cut(string(text), ") ")
		f := strings.Fields(rest) // state, parent, group
		if err == nil && found && f[2] == group && f[0] != "Z" {
			left += fmt.Sprintln(string(text))
		}
	}
	return left
}

func TestConfigCheck(t *testing.T) {
	for _, c := range []struct {
		name string
		c    *Config
		want string
	}{
		{"no source", nil, ""},
		{"a file", &Config{File: "/etc/oncall.json"}, ""},
		{"a command", &Config{Command: []string{"/usr/bin/who", "x"}, Environment: map[string]string{"KEY_FILE": "/k"}, Every: 10 * time.Minute}, ""},
		{"neither", &Config{}, "a file or a command"},
		{"both", &Config{File: "/a", Command: []string{"/b"}}, "a file or a command"},
		{"a command by its name alone", &Config{Command: []string{"who"}}, "absolute path"},
		{"an environment for a file", &Config{File: "/a", Environment: map[string]string{"A": "b"}}, "no command to find it"},
		{"a variable that is none", &Config{Command: []string{"/b"}, Environment: map[string]string{"A=B": "c"}}, "no name of a variable"},
		{"an answer that is over before the next", &Config{File: "/a", Every: time.Minute, Keep: time.Minute}, "twice as long"},
		{"an answer of last week", &Config{File: "/a", Keep: 7 * 24 * time.Hour}, "up to 24h"},
		{"always", &Config{File: "/a", Every: time.Millisecond}, "a second at least"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.c.Check()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestRunAsksUntilItIsOver(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{}, 8)
	s := New(&Config{File: write(t, "oncall.json", ben, 0o600)}, tick{&handClock{noon}}, slog.Default(), func() {
		select {
		case asked <- struct{}{}:
		default:
		}
	})
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	for range 3 {
		<-asked
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// tick is a clock on which every wait is over at once.
type tick struct{ *handClock }

func (tick) After(time.Duration) <-chan time.Time {
	c := make(chan time.Time, 1)
	c <- noon
	return c
}
