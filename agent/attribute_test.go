package agent

import (
	"strings"
	"testing"
	"time"

	"curfew.internal/grant"
)

func TestSudosCommandIsReadAsSudoReadsIt(t *testing.T) {
	for line, want := range map[string]string{
		"sudo id":                           "id",
		"sudo -n id -u":                     "id -u",
		"sudo -nu root /usr/bin/id":         "/usr/bin/id",
		"sudo -uroot id":                    "id",
		"sudo -u root -g wheel -- id x":     "id x",
		"sudo --user=root --chdir /tmp id":  "id",
		"sudo --preserve-env=A,B id":        "id",
		"sudo A=b -n C=d id E=f":            "id E=f",
		"sudo /a=b":                         "/a=b",
		"sudo -- A=b id":                    "A=b id",
		"sudo -p prompt env sh -c x whoami": "env sh -c x whoami",
		"sudo -s id":                        "",
		"sudo -i":                           "",
		"sudo -ni":                          "",
		"sudo -e /etc/hosts":                "",
		"sudo -l":                           "",
		"sudo -v":                           "",
		"sudo -h db1 id":                    "",
		"sudo --us root id":                 "",
		"sudo --shell id":                   "",
		"sudo --non-interactive=yes id":     "",
		"sudo":                              "",
		"sudo -u":                           "",
		"sudo -n":                           "",
		"sudo --":                           "",
		"sudo A=b":                          "",
	} {
		words, ok := sudoCommand(strings.Fields(line))
		if got := strings.Join(words, " "); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v", line, got, ok)
		}
	}
}

// oneCall is a host on which one sudo runs.
type oneCall struct {
	fakeHost
	argv string
}

func (w oneCall) Argv(int) ([]string, error) { return strings.Fields(w.argv), nil }

func TestASudoCallNeverOutlivesTheGrantItCameBy(t *testing.T) {
	of := func(id, runAs string, ends time.Duration, commands ...string) grant.Grant {
		g := grant.Grant{ID: id, Person: grant.Person{Name: "ana"}, NotBefore: noon, NotAfter: noon.Add(ends), Role: grant.Role{RunAs: []string{runAs}}}
		for _, c := range commands {
			parsed, err := grant.ParseCommand(c)
			if err != nil {
				t.Fatal(err)
			}
			g.Role.Commands = append(g.Role.Commands, parsed)
		}
		return g
	}
	live := []grant.Grant{
		of("g-long", "root", time.Hour, "/usr/bin/whoami"),
		of("g-short", "root", time.Minute, "/usr/bin/env *", "/usr/bin/whoami"),
		of("g-middle", "root", 10*time.Minute, "/usr/bin/systemctl restart cron"),
		of("g-other", "postgres", time.Second, "/usr/bin/psql *"),
	}
	for argv, want := range map[string]string{
		"sudo -n env sh -c evil whoami":      "g-short", // a word at the end is an argument
		"sudo -n /bin/env sh -c evil whoami": "g-short",
		"sudo env /usr/bin/whoami":           "g-short",
		"sudo whoami":                        "g-short", // both could have
		"sudo systemctl restart cron":        "g-middle",
		"sudo /bin/systemctl restart cron":   "g-middle",
		"sudo -s whoami":                     "g-short", // what it runs is not known
		"sudo unheard-of":                    "g-short", // a rule of the host's own
	} {
		w := newWorld()
		a := w.agent(t)
		a.Host = oneCall{fakeHost{w}, argv}
		if got := a.under(Knock{User: "root", PID: 7}, "ana", live); got.ID != want {
			t.Errorf("%s: under %s, not %s", argv, got.ID, want)
		}
	}
}
