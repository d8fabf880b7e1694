package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"curfew.internal/test/lab"
)

// window opens a terminal of the person's on db1.
func (s *scene) window(t *testing.T, p *lab.Person) *lab.Window {
	t.Helper()
	w, err := p.Window(t.Context(), 100, 30, "ssh", "db1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// types types lines into a window, and waits for what each shows.
func types(t *testing.T, w *lab.Window, steps ...[2]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, step := range steps {
		if step[0] != "" {
			if err := w.Type(step[0]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Until(ctx, step[1]); err != nil {
			t.Fatal(err)
		}
	}
}

// recordings of a grant, as the person's list has them.
func (s *scene) recordings(t *testing.T, id, want string) string {
	t.Helper()
	var out string
	s.until(t, "recording with "+want, func() error {
		var err error
		out, _, err = s.fleet.People["cleo"].Run(t.Context(), "", "terminals", "--id", id)
		if err == nil && !strings.Contains(out, want) {
			err = errors.New(out)
		}
		return err
	})
	return out
}

// onRecord: what a terminal showed is replayed and found, sudo and sizes
// included, and a password is not.
func onRecord(t *testing.T, s *scene) {
	t.Helper()
	p, cleo := s.person(t, "nat"), s.fleet.People["cleo"]
	id := s.grant(t, p, "typed", "20m")
	w := s.window(t, p)
	types(t, w, [2]string{"PS1='go> '; stty -a | head -1\r", "rows 30; columns 100"}, [2]string{"echo one-$((40+2))\r", "one-42"})
	if err := w.Resize(120, 40); err != nil {
		t.Fatal(err)
	}
	types(t, w,
		[2]string{"until stty size | grep '40 120'; do sleep 0.1; done\r", "\r40 120\r"},
		[2]string{"sudo -n id -u; echo sudo-$((1+1))\r", "\r0\r"}, [2]string{"", "sudo-2"}, // while it runs, sudo takes what is typed
		[2]string{"echo ready-$((1+1)); cat >/dev/null\r", "ready-2"},
	)
	types(t, w, [2]string{"typed-in-the-open\r", "typed-in-the-open"}, [2]string{"\x04echo back-$((1+1))\r", "back-2"},
		[2]string{"read -rsp 'wo''rd: ' x; echo; echo got ${#x}\r", "word: "}, [2]string{"Kn0ckKn0ck\r", "got 10"},
		[2]string{"tty; echo $SSH_TTY; test -w $(ps -o tty= -p $PPID | sed s,^,/dev/,) || echo sh''ut\r", "shut"},
		[2]string{"exit 7\r", "logout"})
	if err := w.End(t.Context()); err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("it ended: %v", err)
	}
	out := s.recordings(t, id, "the shell ended")
	name := strings.Fields(out)[0]
	shown, _, err := cleo.Run(t.Context(), "", "replay", id, "--speed", "1000")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one-42", "40 120", "\r0\r", "typed-in-the-open", "got 10", "shut"} {
		if !strings.Contains(shown, want) {
			t.Errorf("the replay lacks %q:\n%s", want, shown)
		}
	}
	file := filepath.Join(t.TempDir(), "x.cast")
	if _, _, err := cleo.Run(t.Context(), "", "replay", name, "--cast", file); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for text, there := range map[string]bool{
		`"version":2`: true, `"width":100,"height":30`: true, `"r", "120x40"`: true, `"i", "typed-in-the-open\r"`: true,
		"Kn0ckKn0ck": false, `"i", "Kn`: false,
	} {
		if strings.Contains(string(b), text) != there {
			t.Errorf("%s is in the file: %v\n%s", text, !there, b)
		}
	}
	if out, _, err := cleo.Run(t.Context(), "", "terminals", "ONE-42"); err != nil || !strings.Contains(out, name) || !strings.Contains(out, "one-42") {
		t.Errorf("search: %v %s", err, out)
	}
	s.until(t, "word of who looked", func() error {
		out, _, err := cleo.Run(t.Context(), "", "audit", "search", "--kind", "admin", "replayed", name)
		if err == nil && !strings.Contains(out, "cleo") {
			err = errors.New(out)
		}
		return err
	})
	s.verified(t, id, "Terminals whose segments were looked at: 1, of which 0 had not ended")
	s.takenAlong(t, id, name, b)
	// Nothing of it waits on the host.
	s.until(t, "its folder's end", func() error {
		_, err := s.db1.Sh(t.Context(), "test ! -e /var/lib/curfew/terminals/"+name)
		return err
	})
}

// verified exports what there is of a grant, and has it checked: it holds at any
// time, and says so much once the host has sent all of it.
func (s *scene) verified(t *testing.T, id, want string) {
	t.Helper()
	cleo := s.fleet.People["cleo"]
	bundle := filepath.Join(t.TempDir(), "bundle")
	s.until(t, "a bundle with all of "+id, func() error {
		if _, _, err := cleo.Run(t.Context(), "", "audit", "export", "--grant", id, bundle); err != nil {
			return err
		}
		out, _, err := cleo.Run(t.Context(), "", "verify", bundle)
		if err != nil || !strings.Contains(out, "VERIFIED") {
			t.Fatalf("%v %s", err, out)
		}
		if err := os.Remove(bundle); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out, want) {
			return errors.New(out)
		}
		return nil
	})
}

// alone runs curfew on a machine that has neither a network nor a session.
func (s *scene) alone(t *testing.T, args ...string) (out, said string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "unshare", append([]string{"-n", filepath.Join(s.fleet.Repo, "bin/curfew")}, args...)...)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	return string(b), stderr.String(), err
}

// takenAlong: an export that has what the terminal showed is checked, and played,
// by somebody who has nothing but it and the log's key. A byte that was changed is
// named by its segment, and nothing is played then.
func (s *scene) takenAlong(t *testing.T, id, name string, shown []byte) {
	t.Helper()
	dir, cleo := t.TempDir(), s.fleet.People["cleo"]
	bundle, file := filepath.Join(dir, "bundle"), filepath.Join(dir, "x.cast")
	if _, _, err := cleo.Run(t.Context(), "", "audit", "export", "--recordings", "--grant", id, bundle); err != nil {
		t.Fatal(err)
	}
	key, _, err := cleo.Run(t.Context(), "", "audit", "checkpoint", "--key")
	if err != nil {
		t.Fatal(err)
	}
	key = strings.TrimSpace(key)
	out, said, err := s.alone(t, "verify", bundle, "--key", key)
	if err != nil || !strings.Contains(out, "VERIFIED: nothing") || !strings.Contains(out, "Segments of recordings that show what their hosts signed:") {
		t.Fatalf("%v %s%s", err, out, said)
	}
	out, said, err = s.alone(t, "replay", id, "--bundle", bundle, "--key", key, "--speed", "1000")
	if err != nil || !strings.Contains(out, "typed-in-the-open") || !strings.Contains(said, "--- it ended: the shell ended") {
		t.Errorf("%v %s%s", err, out, said)
	}
	if _, said, err := s.alone(t, "replay", name, "--bundle", bundle, "--key", key, "--cast", file); err != nil {
		t.Fatal(err, said)
	}
	if b, err := os.ReadFile(file); err != nil || !bytes.Equal(b, shown) {
		t.Errorf("out of the bundle comes another recording than from the server: %v\n%s", err, b)
	}
	b, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte(`"i", "typed-in-the-open`))
	if at == -1 {
		t.Fatal("what was typed is not in the bundle")
	}
	b[at+10] ^= 1
	if err := os.WriteFile(bundle, b, 0o600); err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`entry \d+: segment \d+ of terminal ` + name + ` was changed: it is not what its host signed`)
	if out, _, err := s.alone(t, "verify", bundle, "--key", key); err == nil || !named.MatchString(out) || !strings.Contains(out, "NOT VERIFIED, 1 findings") {
		t.Errorf("%v %s", err, out)
	}
	if out, said, err := s.alone(t, "replay", name, "--bundle", bundle, "--key", key); err == nil || out != "" || !named.MatchString(said) {
		t.Errorf("a recording that was changed is played: %v %s%s", err, out, said)
	}
}

// bare: logins without a terminal work as before, and the record says what of
// them it does not have; a role can refuse them.
func bare(t *testing.T, s *scene) {
	t.Helper()
	p, cleo := s.person(t, "noa"), s.fleet.People["cleo"]
	id := s.grant(t, p, "ops", "20m")
	out, err := s.ssh(t, p, "echo bare; tty; sudo -n id; exit 3")
	if err == nil || !strings.Contains(out, "bare\nnot a tty\nuid=0(root)") {
		t.Errorf("%v %q", err, out)
	}
	s.until(t, "word of it", func() error {
		out, _, err := cleo.Run(t.Context(), "", "timeline", id)
		if err == nil && !strings.Contains(out, "a session without a terminal") {
			err = errors.New(out)
		}
		return err
	})
	if _, _, err := cleo.Run(t.Context(), "", "revoke", id); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, "noa")
	strict := s.grant(t, p, "strict", "20m")
	out, err = s.ssh(t, p, "echo bare")
	refused(t, out, err, "log in with `ssh -t`")
	if strings.Contains(out, "bare\n") {
		t.Error("it ran")
	}
	w := s.window(t, p)
	types(t, w, [2]string{"echo strict-$((1+1)); sudo -n id; echo sudo-$((1+1))\r", "uid=0(root)"}, [2]string{"", "sudo-2"}, // while it runs, sudo takes what is typed
		[2]string{"script -qec 'sudo -n id; echo within-$?' /dev/null; echo out-$((1+1))\r", "within-1\r\n"}, [2]string{"", "out-2"}, [2]string{"exit\r", "logout"})
	s.recordings(t, strict, "the shell ended")
}

// recorderKilled: whoever ends the recorder ends the session, what was started
// to outlive it included.
func recorderKilled(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "nic")
	id := s.grant(t, p, "ops", "20m")
	w := s.window(t, p)
	types(t, w, [2]string{"nohup setsid sleep 9100 >/dev/null 2>&1 & echo up-$((2+2))\r", "up-4"})
	s.until(t, "the child", func() error {
		_, err := s.db1.Sh(t.Context(), "pgrep -f '^sleep 9100'")
		return err
	})
	s.sh(t, "pkill -9 -f '^/usr/libexec/curfew-agent/curfew-record terminal'")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := w.End(ctx); err == nil {
		t.Error("it ended well")
	}
	s.until(t, "the end of what it started", func() error {
		_, err := s.db1.Sh(t.Context(), "! pgrep -f '^sleep 9100'")
		return err
	})
	s.recordings(t, id, "its recorder was ended")
	s.verified(t, id, "of which 0 had not ended")
}

// agentKilled: an agent that is killed while a terminal is recorded loses
// nothing of it, nor does a control plane that is away.
func agentKilled(t *testing.T, s *scene) {
	t.Helper()
	p, cleo := s.person(t, "nell"), s.fleet.People["cleo"]
	id := s.grant(t, p, "ops", "20m")
	w := s.window(t, p)
	types(t, w, [2]string{"for i in {1..400}; do echo line-$i; sleep 0.01; done; echo all\r", "line-20\r"})
	for range 3 {
		s.sh(t, "systemctl kill -s KILL curfew-agent; systemctl restart curfew-record; sleep 0.7")
	}
	types(t, w, [2]string{"", "all\r\n"}, [2]string{"exit\r", "logout"})
	s.recordings(t, id, "the shell ended")
	shown, _, err := cleo.Run(t.Context(), "", "replay", id, "--speed", "1000")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 400 {
		if want := fmt.Sprintf("line-%d\r", i+1); !strings.Contains(shown, want) {
			t.Fatalf("the replay lacks %q", want)
		}
	}
	s.verified(t, id, "of which 0 had not ended")
}

// watched: somebody looks on, and ends the session.
func watched(t *testing.T, s *scene) {
	t.Helper()
	p, cleo := s.person(t, "nora"), s.fleet.People["cleo"]
	id := s.grant(t, p, "ops", "20m")
	w := s.window(t, p)
	types(t, w, [2]string{"echo first-$((3+3))\r", "first-6"})
	s.recordings(t, id, "goes on")
	eye, err := cleo.Window(t.Context(), 100, 30, "watch", id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(eye.Close)
	types(t, eye, [2]string{"", "first-6"})
	types(t, w, [2]string{"echo second-$((4+4))\r", "second-8"})
	types(t, eye, [2]string{"", "second-8"})
	types(t, w, [2]string{"sudo -n env sleep 9200\r", "9200"})
	s.until(t, "the command", func() error {
		_, err := s.db1.Sh(t.Context(), "pgrep -f '^sleep 9200'")
		return err
	})
	types(t, eye, [2]string{"k", "end the session of nora"}, [2]string{"y", "was told to end it"})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := w.End(ctx); err == nil {
		t.Error("it ended well")
	}
	s.until(t, "the end of what runs", func() error {
		_, err := s.db1.Sh(t.Context(), "! pgrep -f '^sleep 9200'")
		return err
	})
	if err := eye.End(ctx); err != nil {
		t.Error(err)
	}
	s.until(t, "the record", func() error {
		out, _, err := cleo.Run(t.Context(), "", "timeline", id)
		if err == nil && !strings.Contains(out, "ended by cleo, who watched it") {
			err = errors.New(out)
		}
		return err
	})
}
