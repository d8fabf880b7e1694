package vm

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// turns are ways by which a file that was written elsewhere comes to a place
// that matters, or leaves it, and by which datagrams go out. Told is what the
// record has of it: the object and the text. What has none is not told.
var turns = []struct{ name, do, told string }{
	{"mv into", "echo '# n' >/mine/n; mv /mine/n /etc/cron.d/n", `^/etc/cron.d/n put what was /mine/n at /etc/cron.d/n \(rename\): device \d+:\d+, inode \d+; handed over to cron`},
	{"a relative path", "touch /mine/here; cd /etc/cron.d; mv /mine/here there; cd /", `^/etc/cron.d/there put what was /mine/here at /etc/cron.d/there \(rename\)`},
	{"ln", "touch /mine/l; ln /mine/l /etc/sudoers.d/l~", `^/etc/sudoers.d/l~ put another name at /etc/sudoers.d/l~, of /mine/l \(hard link\): device`},
	{"ln -s", "ln -s ../../mine/l /etc/cron.d/s", `^/etc/cron.d/s put a symbolic link at /etc/cron.d/s, to ../../mine/l; handed over to cron`},
	{"an exchange", "touch /mine/x; turn exchange /mine/x /etc/cron.d/n", `^/etc/cron.d/n put what was /mine/x at /etc/cron.d/n, and the other way round \(exchange\)`},
	{"the same from the other side", "turn exchange /etc/cron.d/n /mine/x", `^/etc/cron.d/n put what was /mine/x at /etc/cron.d/n, and the other way round \(exchange\)`},
	{"io_uring", "touch /mine/u; turn ring /mine/u /etc/cron.d/u", `^/etc/cron.d/u put what was /mine/u at /etc/cron.d/u \(rename\)`},
	{"an editor", "sed -i 's/^#/##/' /etc/cron.d/n", `^/etc/cron.d/n put what was /etc/cron.d/sed\w+ at /etc/cron.d/n \(rename\)`},
	{"by a bind", "mkdir -p /bound; mount --bind /etc/cron.d /bound; mv /bound/u /bound/v; umount -l /bound", `^/bound/v put what was /bound/u at /bound/v \(rename\)`},
	{"another name outside", "ln /etc/shadow /mine/shadow", `^/etc/shadow gave /etc/shadow another name, /mine/shadow \(hard link\): device`},
	{"mv out of", "mv /etc/cron.d/v /mine/v", `^/etc/cron.d/v took away /etc/cron.d/v: it is /mine/v now \(rename\): device \d+:\d+, inode \d+$`},
	{"rm", "rm /etc/cron.d/s", `^/etc/cron.d/s took away /etc/cron.d/s: device \d+:\d+, inode \d+$`},
	{"rmdir", "mkdir /etc/cron.d/d; rmdir /etc/cron.d/d", `^/etc/cron.d/d took away /etc/cron.d/d: device`},
	{"a folder above", "mv /etc/cron.d /etc/cron.e; mv /etc/cron.e /etc/cron.d", `^/etc/cron.e put what was /etc/cron.d at /etc/cron.e \(rename\)`},
	{"and back", ":", `^/etc/cron.d put what was /etc/cron.e at /etc/cron.d \(rename\)`},
	{"elsewhere", "mv /mine/v /mine/w; ln /mine/w /mine/v; rm /mine/v", ""},
	{"what fails", "touch /mine/f; ! turn rename /mine/f /etc/cron.d", ""},
	{"a hundred datagrams", "turn send 127.0.0.1 6401", `^udp://127.0.0.1:6401 sent datagrams to udp://127.0.0.1:6401$`},
	{"the same from another process", "turn send 127.0.0.1 6401", `^udp://127.0.0.1:6401 sent datagrams to`},
	{"by version 6", "turn send ::1 6401", `^udp://\[::1\]:6401 sent datagrams to`},
	{"by version 4 within 6", "turn send ::ffff:127.0.0.2 6402", `^udp://127.0.0.2:6402 sent datagrams to`},
	{"datagrams that do not go", "! turn send 127.0.0.1 0", ""},
	{"the last", "mv /etc/cron.d/there /etc/cron.d/last", `^/etc/cron.d/last put what was /etc/cron.d/there at /etc/cron.d/last`},
}

const tidied = `rm -rf /mine /etc/cron.d/{n,last} /etc/sudoers.d/l~`

// named: what comes to a place that matters by another call than open(2), or
// leaves it, is told, with the paths as the kernel found them; so is where
// datagrams go without connect(2). Nothing else is.
func named(t *testing.T, s *scene) {
	t.Helper()
	script := "set -e; trap 'echo failed: \"$BASH_COMMAND\" >&2' ERR; mkdir /mine; turn() { /usr/lib/lab/turn \"$@\"; }\n"
	for _, w := range turns {
		script += w.do + "\n"
	}
	if _, err := s.vm.Feed(t.Context(), script, "cat >/usr/lib/lab/turns"); err != nil {
		t.Fatal(err)
	}
	p := s.person(t, "tom")
	id, _ := s.grantOf(t, p, "keeper", 20*time.Minute)
	out, err := s.ssh(t, p, "sudo -n env bash /usr/lib/lab/turns")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got []string
	s.until(t, "what the record says", func() error {
		out, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "-o", "ndjson", "audit", "search", "--limit", "0", "--grant", id)
		if err != nil {
			return err
		}
		got = nil
		for line := range strings.Lines(out) {
			var e struct{ Kind, Object, Text string }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				return err
			}
			if e.Kind == "name" || strings.HasPrefix(e.Text, "sent ") {
				got = append(got, e.Object+" "+e.Text)
			}
		}
		if len(got) == 0 || !strings.HasPrefix(got[len(got)-1], "/etc/cron.d/last ") {
			return fmt.Errorf("not the last one yet: %q", got)
		}
		return nil
	})
	s.end(t, id, "tom")
	s.sh(t, tidied)
	all := strings.Join(got, "\n")
	for _, w := range turns {
		if w.told == "" {
			continue
		}
		if len(got) == 0 || !regexp.MustCompile(w.told).MatchString(got[0]) {
			t.Fatalf("%s: want %s, next is %q, and of all\n%s", w.name, w.told, got[:min(1, len(got))], all)
		}
		got = got[1:]
	}
	if len(got) > 0 {
		t.Errorf("told, and not done: %q", got)
	}
}
