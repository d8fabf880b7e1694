package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// litter is what a session of NAME's leaves, as herself and as root.
const litter = `echo '* * * * * touch /tmp/cron' | crontab -
echo 'touch /tmp/at' | at now + 1 hour 2>/dev/null
tmux new -d 'sleep 9191'
systemd-run --user --unit=on --quiet sleep 9192
echo left > /tmp/NAME-note
sudo -n env sh -e -c '
loginctl enable-linger NAME
mkdir -p /root/.ssh
echo "ssh-ed25519 AAAA NAME" >> /root/.ssh/authorized_keys
for f in /tmp/NAME-sh /usr/local/bin/NAME-sh; do cp /bin/sh $f; chmod 4755 $f; done
cp /bin/cat /usr/local/sbin/NAME-cat
python3 -c "import os; os.setxattr(\"/usr/local/sbin/NAME-cat\", \"security.capability\", bytes.fromhex(\"0100000204000000000000000000000000000000\"))"
printf "[Service]\nExecStart=/bin/sleep 9193\n" > /etc/systemd/system/NAME.service
systemctl daemon-reload
systemctl start NAME
mknod -m 666 /srv/NAME-disk b 252 4095
printf "NAME ALL=(ALL) NOPASSWD: ALL\n" > /etc/sudoers.d/NAME-more
touch /run/userdb/games:sudo.membership
systemctl set-environment NAME_path=/srv
'
`

// receipt is what a host signed, as `curfew audit search -o ndjson` tells it.
type receipt struct {
	Removed   []string `json:"removed"`
	Left      []string `json:"left"`
	Looked    []string `json:"looked"`
	Skipped   []string `json:"skipped"`
	Signature bool     `json:"signature_valid"`
}

// receipts waits for the host's word of that kind on a grant.
func (s *scene) receipts(t *testing.T, id, kind string) []receipt {
	t.Helper()
	var all []receipt
	s.until(t, kind+" of "+id, func() error {
		out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "-o", "ndjson", "audit", "search", "--grant", id, "--kind", kind)
		all = nil
		for line := range strings.Lines(out) {
			var e struct{ Receipt receipt }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				return err
			}
			all = append(all, e.Receipt)
		}
		if err == nil && len(all) == 0 {
			err = errNotYet
		}
		return err
	})
	return all
}

func has(lines []string, beginning string) bool {
	return slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, beginning) })
}

// littered has a person leave all that, ends her grant, and returns what the
// host says of it.
func (s *scene) littered(t *testing.T, name, role string) receipt {
	t.Helper()
	p := s.person(t, name)
	id := s.grant(t, p, role, "10m")
	out, err := s.ssh(t, p, strings.ReplaceAll(litter, "NAME", name))
	allowed(t, out, err)
	s.sh(t, "pgrep -f '^sleep 9191' && pgrep -f '^/usr/bin/sleep 9192' && pgrep -f '^/bin/sleep 9193' && ls /run/curfew/before/"+name+".json")
	s.over(t, name, id)
	ends, looks := s.receipts(t, id, "removed"), s.receipts(t, id, "leftovers")
	if len(looks) != 1 || !looks[0].Signature || !ends[len(ends)-1].Signature {
		t.Fatalf("%+v %+v", ends, looks)
	}
	if has(looks[0].Left, "bpf-pin") || len(looks[0].Skipped) > 0 {
		t.Errorf("ours, or nothing: %+v", looks[0])
	}
	t.Logf("removed at once: %q\nremoved: %q\nleft: %q\nnot looked at: %q", ends[0].Removed, looks[0].Removed, looks[0].Left, looks[0].Skipped)
	for _, f := range []string{"crontab /var/spool/cron/crontabs/" + name, "at-job /var/spool/cron/atjobs/a", "temp-file /tmp/" + name + "-note", "temp-file /tmp/tmux-"} {
		if !has(ends[0].Removed, f) {
			t.Errorf("the receipt of the end does not name %s", f)
		}
	}
	out, _, err = s.fleet.People["cleo"].Run(t.Context(), "", "timeline", id)
	if err != nil || !strings.Contains(out, "LEFT: ") || !strings.Contains(out, "authorized-keys /root/.ssh/authorized_keys") {
		t.Errorf("%v\n%s", err, out)
	}
	out, _, err = s.fleet.People["cleo"].Run(t.Context(), "", "show", id)
	if err != nil || !strings.Contains(out, "leftovers of sessions: ") {
		t.Errorf("%v\n%s", err, out)
	}
	s.sh(t, fmt.Sprintf("! ls /var/spool/cron/crontabs/%[1]s /var/spool/cron/atjobs/a* /tmp/%[1]s-note /var/lib/systemd/linger/%[1]s /run/curfew/before/%[1]s.json 2>/dev/null | grep . && ! pgrep -f 'sleep 919[12]'", name))
	for _, f := range []string{
		"account-file /run/userdb/games:sudo.membership: ", "system-unit environment of what systemd starts: changed since the session began: " + name + "_path",
	} {
		if !has(looks[0].Left, f) {
			t.Errorf("not named: %s", f)
		}
	}
	s.sh(t, "rm /run/userdb/games:sudo.membership; systemctl unset-environment "+name+"_path")
	return looks[0]
}

// named: a role that says nothing of leftovers.
func named(t *testing.T, s *scene) {
	t.Helper()
	looked := s.littered(t, "dee", "ops")
	for _, f := range []string{
		"authorized-keys /root/.ssh/authorized_keys: ", "setuid /tmp/dee-sh: ", "program /usr/local/bin/dee-sh: ", "program /usr/local/sbin/dee-cat: ",
		"system-unit /etc/systemd/system/dee.service: ", "sudo-rule /etc/sudoers.d/dee-more: ", "device /srv/dee-disk: device 252:4095, mode 666",
	} {
		if !has(looked.Left, f) {
			t.Errorf("not named: %s", f)
		}
	}
	for _, f := range looked.Left {
		if strings.HasPrefix(f, "program") && !strings.Contains(f, "; setuid: ") && !strings.Contains(f, "; capability: ") {
			t.Errorf("what it is: %s", f)
		}
	}
	s.sh(t, "ls /tmp/dee-sh /usr/local/bin/dee-sh && pgrep -f '^/bin/sleep 9193'")
	s.sh(t, "systemctl stop dee; rm -f /srv/dee-disk /tmp/dee-sh /usr/local/*bin/dee-* /etc/systemd/system/dee.service /etc/sudoers.d/dee-more; systemctl daemon-reload")
}

// tidied: a role that says what goes; and an agent that is killed at the end.
func tidied(t *testing.T, s *scene) {
	t.Helper()
	s.sh(t, "mkdir -p /root/.ssh; touch /root/.ssh/authorized_keys")
	looked := s.littered(t, "eno", "tidy")
	for _, f := range []string{
		"setuid /tmp/eno-sh: ", "program /usr/local/bin/eno-sh: ", "program /usr/local/sbin/eno-cat: ", "system-unit /etc/systemd/system/eno.service: ",
		"sudo-rule /etc/sudoers.d/eno-more: ",
	} {
		if !has(looked.Removed, f) {
			t.Errorf("not removed: %s", f)
		}
	}
	// It was there before: a line too much in it is named, and not undone.
	if !has(looked.Left, "authorized-keys /root/.ssh/authorized_keys: ") {
		t.Errorf("not named: %q", looked.Left)
	}
	s.sh(t, "rm /srv/eno-disk; ! ls /tmp/eno-sh /usr/local/bin/eno-sh /usr/local/sbin/eno-cat /etc/systemd/system/eno.service /etc/sudoers.d/eno-more 2>/dev/null | grep . && ! pgrep -f '^/bin/sleep 9193'")
}

// lookedByTheNext: whoever ends the agent in the middle of a look has it made
// by the next one, once.
func lookedByTheNext(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "flo")
	id := s.grant(t, p, "tidy", "10m")
	out, err := s.ssh(t, p, "sudo -n env sh -c 'cp /bin/sh /usr/local/bin/flo-sh; chmod 4755 /usr/local/bin/flo-sh'")
	allowed(t, out, err)
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", id); err != nil {
		t.Fatal(err)
	}
	s.until(t, "a look that began", func() error {
		out, err := s.db1.Sh(t.Context(), "cat /var/lib/curfew/looks/"+id+".json && systemctl kill -s KILL curfew-agent")
		if err == nil && !strings.Contains(out, id) {
			err = errors.New(out)
		}
		return err
	})
	s.nothing(t, "flo")
	s.clean(t, id)
	if looks := s.receipts(t, id, "leftovers"); len(looks) != 1 || !has(looks[0].Removed, "program /usr/local/bin/flo-sh: ") {
		t.Errorf("%+v", looks)
	}
	s.until(t, "the end of the task", func() error {
		if out, err := s.db1.Sh(t.Context(), "ls /var/lib/curfew/looks; cat /var/lib/curfew/opened.json"); err != nil || strings.Contains(out, id) {
			return errors.Join(err, errors.New(out))
		}
		return nil
	})
}
