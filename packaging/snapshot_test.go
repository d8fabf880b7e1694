package packaging

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"curfew.internal/test/lab"
)

// A snapshot is all that can be seen of a host's files: kind, mode, owner,
// where a link leads and what is in a file. Times are left out: a file that is
// put back as it was is a new one.
type snapshot map[string]string

const takeSnapshot = `find / /run /sys/fs/bpf -xdev -path /proc -prune -o -path /sys -prune -o -path /srv -prune -o -printf '%p\t%y %m %U %G %l\n'
find / /run -xdev -path /proc -prune -o -path /srv -prune -o -type f -exec sha256sum {} + 2>/dev/null | sed -E 's/^([0-9a-f]+)  (.*)/\2\t\1/'
nft list ruleset | sed 's/^/nft ruleset\t/'
getent passwd | sed 's/^/getent passwd\t/'`

func look(t *testing.T, h *lab.Host) snapshot {
	t.Helper()
	out, err := h.Sh(t.Context(), takeSnapshot)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, out)
}

func parse(t *testing.T, out string) snapshot {
	t.Helper()
	s := snapshot{}
	for line := range strings.Lines(out) {
		name, what, ok := strings.Cut(line, "\t")
		if ok {
			s[name] += what
		}
	}
	if len(s) < 1000 {
		t.Fatalf("that is no host: %s", out)
	}
	return s
}

// others are what a host changes by itself, or by its being used, whether our
// packages are there or not.
var others = []struct{ path, why string }{
	{`/var/lib/dpkg(/.*)?`, "dpkg's own books"},
	{`/var/lib/rpm(/.*)?`, "rpm's own"},
	{`/var/log/.*`, "logs are there to stay"},
	{`/run/log/.*`, "the journal"},
	{`/run/systemd(/.*)?`, "what systemd has in memory"},
	{`/var/lib/systemd/.*`, "the stamps of timers"},
	{`/run/user(/.*)?`, "logind's folders of whoever is logged in"},
	{`/run/(utmp|[a-z]+\.pid)`, "who is logged in, and which process is which service"},
	{`/run/(sudo|crond\..*|cron.*|sshd.*|motd.*|dbus/.*|nologin|lock/.*)(/.*)?`, "services that were used or started"},
	{`/var/lib/sudo(/.*)?`, "sudo was used"},
	{`/etc/(passwd|group|shadow|gshadow)-`, "the copy that useradd and userdel make before a change"},
	{`/etc/\.pwd\.lock`, "the lock of the account files"},
	{`/(tmp|var/tmp)(/.*)?`, "systemd's private folders come and go with services"},
	{`/root/\.ssh|/root/\.bash_history`, "nobody's business"},
}

// changes are the differences that nobody else has to answer for.
func changes(before, after snapshot) []string {
	var all []string
	names := maps.Clone(before)
	maps.Copy(names, after)
	for name := range names {
		if before[name] == after[name] || slices.ContainsFunc(others, func(o struct{ path, why string }) bool {
			return regexp.MustCompile(`^(` + o.path + `)$`).MatchString(name)
		}) {
			continue
		}
		all = append(all, name+": was "+cmp.Or(before[name], "not there")+", is "+cmp.Or(after[name], "not there"))
	}
	slices.Sort(all)
	return all
}
