package lab

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// A Snapshot is all that can be seen of a host's files: kind, mode, owner,
// where a link leads and what is in a file. Times are left out: a file that is
// put back as it was is a new one.
type Snapshot map[string]string

// TakeSnapshot prints what ParseSnapshot reads.
const TakeSnapshot = `find / /run /sys/fs/bpf -xdev -path /proc -prune -o -path /sys -prune -o -path /srv -prune -o -printf '%p\t%y %m %U %G %l\n'
find / /run -xdev -path /proc -prune -o -path /srv -prune -o -type f -exec sha256sum {} + 2>/dev/null | sed -E 's/^([0-9a-f]+)  (.*)/\2\t\1/'
nft list ruleset | sed 's/^/nft ruleset\t/'
getent passwd | sed 's/^/getent passwd\t/'`

// Look takes a snapshot of a machine that runs scripts as root.
func Look(ctx context.Context, sh func(context.Context, string) (string, error)) (Snapshot, error) {
	out, err := sh(ctx, TakeSnapshot)
	if err != nil {
		return nil, err
	}
	return ParseSnapshot(out)
}

// ParseSnapshot reads what TakeSnapshot printed.
func ParseSnapshot(out string) (Snapshot, error) {
	s := Snapshot{}
	for line := range strings.Lines(out) {
		name, what, ok := strings.Cut(line, "\t")
		if ok {
			s[name] += what
		}
	}
	if len(s) < 1000 {
		return nil, fmt.Errorf("that is no host: %s", out)
	}
	return s, nil
}

// others are what a host changes by itself, or by its being used, whether our
// packages are there or not.
var others = []struct{ path, why string }{
	{`/var/lib/dpkg(/.*)?`, "dpkg's own books"},
	{`/var/(lib|cache)/(apt|debconf)(/.*)?`, "apt's own, and debconf's, which it asks first"},
	{`/var/lib/rpm(/.*)?`, "rpm's own"},
	{`/var/log/.*`, "logs are there to stay"},
	{`/run/log/.*`, "the journal"},
	{`/run/(systemd|credentials)(/.*)?`, "what systemd has in memory"},
	{`/run/machine-id`, "what a machine's first boot calls it, until it is written down"},
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

// Changes are the differences that nobody else has to answer for.
func (s Snapshot) Changes(after Snapshot) []string {
	var all []string
	names := maps.Clone(s)
	maps.Copy(names, after)
	for name := range names {
		if s[name] == after[name] || slices.ContainsFunc(others, func(o struct{ path, why string }) bool {
			return regexp.MustCompile(`^(` + o.path + `)$`).MatchString(name)
		}) {
			continue
		}
		all = append(all, name+": was "+cmp.Or(s[name], "not there")+", is "+cmp.Or(after[name], "not there"))
	}
	slices.Sort(all)
	return all
}

// Privileged says who could be root on a host by something that is not a live
// grant of ours.
const Privileged = `find / -xdev \( -perm -4000 -o -perm -2000 \) -type f | sort
getent passwd | awk -F: '$3 == 0 || $4 == 0'
grep -E '^(root|sudo|adm|shadow|disk):' /etc/group
awk -F: '$2 !~ /^[!*]/' /etc/shadow
python3 -c 'import os
for d, _, names in os.walk("/usr"):
    for n in names:
        p = d + "/" + n
        if os.path.isfile(p) and "security.capability" in os.listxattr(p): print(p)' | sort
grep -rhvE '^[[:space:]]*(#|$)|includedir /run/curfew/sudoers.d' /etc/sudoers /etc/sudoers.d | sort
cat /root/.ssh/authorized_keys
sudo -l -U nobody | grep -v curfew`
