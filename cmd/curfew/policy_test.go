package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"curfew.internal/clock"
)

// noon is when the tests of policies take place.
var noon = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

type stopped struct{ clock.Clock }

func (stopped) Now() clock.Reading { return clock.Reading{Wall: noon} }

// says runs a command line as main does, in the folder of the story.
func says(t *testing.T, story, line string) (out string, code int) {
	t.Helper()
	dir := t.TempDir()
	for _, f := range txtar.Parse([]byte(story)).Files {
		name := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	out, code = ran(t, strings.Fields(line))
	return strings.ReplaceAll(out, dir+"/", ""), code
}

func ran(t *testing.T, args []string) (out string, code int) {
	t.Helper()
	var c commands
	var b bytes.Buffer
	k, err := kong.Must(&c, kong.Name("curfew"), kong.Vars{"version": Version}, kong.ExplicitGroups(groups)).Parse(args)
	if err != nil {
		return err.Error() + "\n", exitUsage
	}
	c.Home = t.TempDir()
	p := &program{globals: c.globals, clock: stopped{}, out: &b, err: &b, in: os.Stdin}
	k.BindTo(t.Context(), (*context.Context)(nil))
	if err := k.Run(p); err != nil {
		var e exit
		if code = exitError; errors.As(err, &e) {
			code = e.code
		}
		return b.String() + "curfew: " + message(err) + "\n", code
	}
	return b.String(), 0
}

const small = `
-- p/roles.yaml --
labels: {tier: [db, web]}
groups:
  dba: [ben, cleo]
roles:
  db-admin:
    description: Restart database services
    hosts: {tier: db}
    commands: [/usr/bin/systemctl restart cron]
    max_duration: 4h
    ticket: required
    ticket_pattern: '^INC-[0-9]+$'
    approval: {by: [group:dba]}
eligible:
  - {role: db-admin, people: [ana], until: 2027-06-30}
  - {role: db-admin, groups: [dba]}
`

func TestPolicyCheck(t *testing.T) {
	visudo := strings.Replace(small, "/usr/bin/systemctl restart cron", "/usr/sbin/visudo", 1)
	old := strings.Replace(small, "2027-06-30", "2027-01-30", 1)
	for _, c := range []struct {
		name, story, line, out string
		code                   int
	}{
		{"a good folder is said to be one", small, "policy check p --strict", "p is a valid policy.\n", 0},
		{
			"a warning stops nothing", visudo, "policy check p",
			"roles.yaml:8:16: warning: roles.db-admin.commands: visudo changes who may do what (an editor on who may run what as root; visudo(8)):" +
				" it outlives the grant: leave this to those who keep the policy\np is a valid policy.\n", 0,
		},
		{
			"but where it is asked for", old, "policy check p --strict",
			"roles.yaml:14:5: warning: eligible: the eligibility for db-admin ended with 2027-01-30: take the line out, or write a later day\n" +
				"p is a valid policy.\ncurfew: warnings in p: 1, and --strict takes none\n", exitRefused,
		},
		{
			"a mistake does", strings.Replace(small, "4h", "4 hours", 1), "policy check p",
			"roles.yaml:9:19: roles.db-admin.max_duration: \"4 hours\" is no duration: write 30m, 2h, 1h30m or 7d, up to 30d\ncurfew: mistakes in p: 1\n", exitRefused,
		},
		{"the people are the server's to know", small, "policy check p --fleet", "curfew: " + errSignIn.Error() + "\n", exitSignIn},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, code := says(t, c.story, c.line)
			if diff := cmp.Diff(c.out, out); diff != "" || code != c.code {
				t.Errorf("code %d\n%s", code, diff)
			}
		})
	}
	out, code := says(t, old, "policy check p -o json")
	var got struct {
		Valid    bool
		Problems []struct {
			File string
			Line int
			Fix  string
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || !got.Valid || len(got.Problems) != 1 || got.Problems[0].Line != 14 || got.Problems[0].Fix == "" {
		t.Errorf("%d, %v: %s", code, err, out)
	}
}
