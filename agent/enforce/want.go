package enforce

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"curfew.internal/grant"
)

// HomeDir is below which accounts have their homes: in memory, like all that
// a grant puts on a host.
const HomeDir = "/run/curfew/home"

// LoginShell has the terminal put under record, and runs the person's own shell
// on it (docs/terminals.md).
const LoginShell = "/usr/libexec/curfew-agent/curfew-shell"

// Want returns what the grants that stand or drain at now call for on the host, and
// the next instant at which the answer changes by time alone (zero if none).
// Two grants of one person share her account: the end of one never cuts the
// other.
func Want(grants []grant.Grant, host string, now time.Time) (State, time.Time) {
	want := State{}
	var next time.Time
	sooner := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	people := map[string][]grant.Grant{}
	for _, g := range grants {
		sooner(g.NotBefore)
		sooner(g.NotAfter)
		sooner(g.Drained())
		if !g.LiveAt(now) && !g.DrainsAt(now) || !g.On(host) {
			continue
		}
		people[g.Person.Name] = append(people[g.Person.Name], g)
	}
	doubtful := doubles(people)
	for name, held := range people {
		if !doubtful[name] {
			account(want, held, now)
		}
	}
	return want, next
}

// doubles are the names with more than one number and the names that share a
// number: whose files and processes theirs would be, nobody can say, so none
// of them is given anything.
func doubles(people map[string][]grant.Grant) map[string]bool {
	doubtful := map[string]bool{}
	owner := map[uint32]string{}
	for name, held := range people {
		for _, g := range held {
			if other, taken := owner[g.Person.UID]; taken && other != name {
				doubtful[name], doubtful[other] = true, true
			}
			owner[g.Person.UID] = name
			if g.Person.UID != held[0].Person.UID {
				doubtful[name] = true
			}
		}
	}
	return doubtful
}

// account adds what a person's grants call for together. Of one that drains
// that is the account, for what runs in it, and no way in.
func account(want State, held []grant.Grant, now time.Time) {
	p := held[0].Person
	want[Thing{Group, p.Name}] = GroupRecord(p)
	want[Thing{Account, p.Name}] = UserRecord(p)
	want[Thing{Marker, p.Name}] = ""
	want[Thing{Home, p.Name}] = fmt.Sprint(p.UID)
	var ids []string
	for _, g := range held {
		want[Thing{EndTimer, g.ID}] = g.Drained().UTC().Format(time.DateTime)
		if !g.LiveAt(now) {
			continue
		}
		ids = append(ids, g.ID)
		if rule := Sudoers(g); rule != "" {
			want[Thing{SudoRule, g.ID}] = rule
		}
	}
	if len(ids) > 0 {
		slices.Sort(ids)
		want[Thing{Principals, p.Name}] = strings.Join(ids, "\n") + "\n"
	}
	if scope, limited := Scope(held); limited {
		want[Thing{Network, p.Name}] = scope
	}
}

// A record has the fields of systemd's JSON user and group records
// (systemd.io/USER_RECORD, systemd.io/GROUP_RECORD), and our mark, which
// systemd passes over.
type record struct {
	UserName      string `json:"userName,omitempty"`
	GroupName     string `json:"groupName,omitempty"`
	RealName      string `json:"realName,omitempty"`
	UID           uint32 `json:"uid,omitempty"`
	GID           uint32 `json:"gid"`
	Disposition   string `json:"disposition"`
	HomeDirectory string `json:"homeDirectory,omitempty"`
	Shell         string `json:"shell,omitempty"`
	Curfew        bool   `json:"curfew"`
}

// UserRecord is the person's account as systemd reads it.
func UserRecord(p grant.Person) string {
	return marshal(record{
		UserName: p.Name, RealName: gecos(p.FullName), UID: p.UID, GID: p.UID, Disposition: "regular",
		HomeDirectory: HomeDir + "/" + p.Name, Shell: LoginShell, Curfew: true,
	})
}

// GroupRecord is the person's own group.
func GroupRecord(p grant.Person) string {
	return marshal(record{GroupName: p.Name, GID: p.UID, Disposition: "regular", Curfew: true})
}

// gecos takes out what the passwd form cannot carry (passwd(5)).
func gecos(name string) string { return strings.NewReplacer(":", " ", ",", " ").Replace(name) }

func marshal(r record) string {
	b, err := json.Marshal(r)
	if err != nil {
		return "" // strings and numbers always marshal
	}
	return string(b) + "\n"
}

// Scope says where a person may connect under all her grants together, and
// until when: one line a destination, behind her uid and the last end. A grant
// that names none does not limit her.
func Scope(held []grant.Grant) (scope string, limited bool) {
	var lines []string
	var end time.Time
	for _, g := range held {
		if len(g.Role.Network) == 0 {
			return "", false
		}
		for _, d := range g.Role.Network {
			lines = append(lines, d.String())
		}
		if g.Drained().After(end) {
			end = g.Drained()
		}
	}
	slices.Sort(lines)
	lines = slices.Compact(lines)
	return fmt.Sprintf("%d %s\n%s\n", held[0].Person.UID, end.UTC().Format(time.RFC3339), strings.Join(lines, "\n")), true
}
