package agent

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhatStandsBehindSudo(t *testing.T) {
	words := func(s string) []string { return strings.Fields(s) }
	for line, want := range map[string]SudoCall{
		"id":                      {Known: true, User: "root", Words: words("id")},
		"-n id -u":                {Known: true, User: "root", Words: words("id -u"), Quiet: true},
		"-nu postgres psql":       {Known: true, User: "postgres", Words: words("psql"), Quiet: true},
		"-upostgres psql":         {Known: true, User: "postgres", Words: words("psql")},
		"--user=postgres psql":    {Known: true, User: "postgres", Words: words("psql")},
		"--user postgres -- psql": {Known: true, User: "postgres", Words: words("psql")},
		"-i":                      {Known: true, User: "root", Shell: true},
		"-iu ben ls":              {Known: true, User: "ben", Shell: true, Words: words("ls")},
		"--shell":                 {Known: true, User: "root", Shell: true},
		"A=b id":                  {Known: true, User: "root", Env: true, Words: words("id")},
		"-E id":                   {Known: true, User: "root", Env: true, Words: words("id")},
		"--preserve-env=A id":     {Known: true, User: "root", Env: true, Words: words("id")},
		"-g wheel id":             {Known: true, User: "root", Odd: "-g", Words: words("id")},
		"--chroot=/srv id":        {Known: true, User: "root", Odd: "--chroot=/srv", Words: words("id")},
		"-nD /srv id":             {Known: true, User: "root", Quiet: true, Odd: "-nD", Words: words("id")},
		"-l":                      {},
		"-v":                      {},
		"-e /etc/hosts":           {},
		"--help":                  {},
		"--user":                  {},
		"-u":                      {},
		"-n":                      {User: "root", Quiet: true},
		"":                        {User: "root"},
	} {
		if got := ReadSudo(words(line)); !cmp.Equal(got, want) {
			t.Errorf("sudo %s: %s", line, cmp.Diff(want, got))
		}
	}
}
