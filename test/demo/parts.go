package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// refused says that a command has to fail, and with which words.
func refused(out string, err error, words ...string) error {
	if err == nil {
		return fmt.Errorf("it was let through: %s", out)
	}
	for _, w := range words {
		if !strings.Contains(err.Error()+out, w) {
			return fmt.Errorf("it was refused without the words %q: %w", w, err)
		}
	}
	return nil
}

// ssh runs a command on db1 as ana.
func (s *story) ssh(ctx context.Context, args ...string) (string, error) {
	out, errs, err := s.fleet.People["ana"].Run(ctx, "", append([]string{"ssh", "db1", "--"}, args...)...)
	return out + errs, err
}

func (s *story) nobody(ctx context.Context) error {
	s.chapter("1. ana is eligible for db-admin on tier=db, and nobody on db1")
	return errors.Join(
		s.step("curfew roles shows her what she may ask for", func() error {
			out, _, err := s.fleet.People["ana"].Run(ctx, "", "roles")
			if err == nil && (!strings.Contains(out, "db-admin") || strings.Contains(out, "web-admin")) {
				err = errors.New(out)
			}
			return err
		}),
		s.step("db1 knows no account ana", func() error {
			out, err := s.db1.Sh(ctx, "getent passwd ana")
			return refused(out, err)
		}),
		s.step("curfew ssh db1 is refused, and says what to do", func() error {
			out, err := s.ssh(ctx, "true")
			return refused(out, err, "curfew roles")
		}),
	)
}

func (s *story) ask(ctx context.Context) error {
	s.chapter("2. ana asks; what does not fit the role is refused with what to change")
	ana := s.fleet.People["ana"]
	var errs []error
	for _, c := range []struct {
		text, words string
		args        []string
	}{
		{"without a reason", "--why", []string{"request", "db-admin", "--on", "db1", "--for", "2m"}},
		{"for longer than the role lasts", "4h", []string{"request", "db-admin", "--on", "db1", "--for", "5h", "--why", "x"}},
		{"for a host outside of the role", "tier=db", []string{"request", "db-admin", "--on", "web1", "--for", "2m", "--why", "x"}},
		{"for a role that is not hers", "you may ask for db-admin", []string{"request", "web-admin", "--on", "web1", "--for", "2m", "--why", "x"}},
		{"with a ticket of another form", "INC-", []string{"request", "db-admin", "--on", "db1", "--for", "2m", "--why", "x", "--ticket", "nope"}},
		{"with a wrong code", "code", []string{"request", "db-admin", "--on", "db1", "--for", "2m", "--why", "disk full"}},
	} {
		errs = append(errs, s.step("refused: "+c.text, func() error {
			out, _, err := ana.Run(ctx, "000000", append(c.args, "--no-wait")...)
			return refused(out, err, c.words)
		}))
	}
	errs = append(errs, s.step("curfew request db-admin --on db1 --for 2m --why 'disk full' --ticket INC-4121", func() error {
		return s.askFor(ctx, "db-admin", "2m", "--ticket", "INC-4121")
	}))
	return errors.Join(errs...)
}

var requestID = regexp.MustCompile(`r-[a-z2-7]{16}`)

func (s *story) askFor(ctx context.Context, role, time string, more ...string) error {
	args := append([]string{"request", role, "--on", "db1", "--for", time, "--why", "disk full", "--no-wait"}, more...)
	out, err := s.fleet.People["ana"].Prove(ctx, args...)
	if err != nil {
		return err
	}
	if s.request = requestID.FindString(out); s.request == "" {
		return fmt.Errorf("no request in %q", out)
	}
	return nil
}

var grantID = regexp.MustCompile(`g-[a-z2-7]{16}`)

func (s *story) approve(ctx context.Context) error {
	s.chapter("3. a second person's word")
	var err error
	if s.webBefore, err = s.web1.Sh(ctx, "cat /etc/passwd /etc/pam.d/* /etc/sudoers.d/*; ls -lR /run/curfew/sudoers.d /run/userdb; getent passwd"); err != nil {
		return err
	}
	return errors.Join(
		s.step("ana cannot approve it herself", func() error {
			out, err := s.fleet.People["ana"].Prove(ctx, "approve", s.request)
			return refused(out, err, "someone else")
		}),
		s.step("ben sees who, what, where, how long and why", func() error {
			out, _, err := s.fleet.People["ben"].Run(ctx, "", "show", s.request)
			for _, w := range []string{"Ana Lima", "db-admin", "db1", "2m", "disk full", "INC-4121", "systemctl restart cron"} {
				if err == nil && !strings.Contains(out, w) {
					err = fmt.Errorf("%q is not in %s", w, out)
				}
			}
			return err
		}),
		s.step("ben approves with his second factor", func() error { return s.yes(ctx) }),
	)
}

func (s *story) yes(ctx context.Context) error {
	out, err := s.fleet.People["ben"].Prove(ctx, "approve", s.request)
	if err != nil {
		return err
	}
	if s.grant = grantID.FindString(out); s.grant == "" {
		return fmt.Errorf("no grant in %q", out)
	}
	return nil
}

func (s *story) work(ctx context.Context) error {
	s.chapter("4. the grant is on db1; ana works")
	err := s.step("within a second the account resolves", func() error {
		return s.until(ctx, "the account", time.Second, func() error {
			_, err := s.db1.Sh(ctx, "getent passwd ana")
			return err
		})
	})
	if err != nil {
		return err
	}
	s.ends = time.Now().Add(2 * time.Minute)
	return errors.Join(
		s.step("curfew ssh db1 logs in, with a certificate that ends with the grant", func() error {
			out, err := s.ssh(ctx, "id -un; echo $HOME")
			if err == nil && !strings.Contains(out, "ana") {
				err = errors.New(out)
			}
			return err
		}),
		s.step("sudo systemctl restart cron works", func() error {
			_, err := s.ssh(ctx, "sudo systemctl restart cron")
			return err
		}),
		s.step("sudo bash is not in the role: sudo refuses it", func() error {
			out, err := s.ssh(ctx, "sudo -n bash -c id")
			return refused(out, err, "password")
		}),
		s.step("sudo db-maintenance leaves a nohup, a setsid and a double-forked child behind", func() error {
			if out, err := s.ssh(ctx, "sudo /usr/local/sbin/db-maintenance"); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return s.children(ctx, 3)
		}),
		s.step("she stays logged in", func() error {
			_, err := s.fleet.People["ana"].Start(ctx, s.file("shell"), "ssh", "db1", "--", "sleep 4000")
			if err != nil {
				return err
			}
			return s.until(ctx, "her shell", 10*time.Second, func() error { return s.children(ctx, 4) })
		}),
		s.step("web1 has changed in nothing", func() error {
			now, err := s.web1.Sh(ctx, "cat /etc/passwd /etc/pam.d/* /etc/sudoers.d/*; ls -lR /run/curfew/sudoers.d /run/userdb; getent passwd")
			if err == nil && now != s.webBefore {
				err = fmt.Errorf("before:\n%s\nnow:\n%s", s.webBefore, now)
			}
			return err
		}),
	)
}

// children counts the sleepers on db1.
func (s *story) children(ctx context.Context, want int) error {
	out, err := s.db1.Sh(ctx, "ps -eo args= | grep -cE '^(sleep|daemonised) [1-4]000' || true")
	if err == nil && strings.TrimSpace(out) != fmt.Sprint(want) {
		err = fmt.Errorf("%s of %d sleepers are there", strings.TrimSpace(out), want)
	}
	return err
}

func (s *story) record(ctx context.Context) error {
	s.chapter("5. what she ran is on record: by whom, under which grant, with whose approval")
	var found string
	ben := s.fleet.People["ben"]
	return errors.Join(
		s.step("curfew audit search finds every command, its children included", func() error {
			return s.until(ctx, "the record", 10*time.Second, func() error {
				var err error
				found, _, err = ben.Run(ctx, "", "audit", "search", "--grant", s.grant)
				for _, w := range []string{"systemctl restart cron", "sleep 1000", "sleep 2000", "daemonised 3000", "ana (by ben)", "uid=", "cwd=", "exit="} {
					if err == nil && !strings.Contains(found, w) {
						err = fmt.Errorf("%q is not in\n%s", w, found)
					}
				}
				return err
			})
		}),
		s.step("curfew audit tail shows the next one live", func() error { return s.live(ctx) }),
	)
}

func (s *story) live(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out := s.file("tail")
	tail, err := s.fleet.People["ben"].Start(ctx, out, "audit", "tail", "--grant", s.grant)
	if err != nil {
		return err
	}
	err = s.until(ctx, "the live record", 15*time.Second, func() error {
		if _, err := s.ssh(ctx, "echo seen-live | cat"); err != nil {
			return err
		}
		b, err := os.ReadFile(out)
		if err == nil && !strings.Contains(string(b), "seen-live") {
			err = fmt.Errorf("the tail says %q", b)
		}
		return err
	})
	cancel()
	_ = tail.Wait() // told to stop
	return err
}

func (s *story) end(ctx context.Context) error {
	s.chapter("6. the two minutes are over")
	fmt.Printf("         (waiting %v)\n", time.Until(s.ends).Round(time.Second))
	wait := time.Until(s.ends) + 5*time.Second
	err := s.step("her shell and all three children are dead", func() error {
		return s.until(ctx, "the end", wait, func() error { return s.children(ctx, 0) })
	})
	return errors.Join(err, s.gone(ctx), s.told(ctx))
}

// gone looks at a host on which nothing may be left.
func (s *story) gone(ctx context.Context) error {
	return errors.Join(
		s.step("the account does not resolve", func() error {
			return s.until(ctx, "removal", 5*time.Second, func() error {
				out, err := s.db1.Sh(ctx, "getent passwd ana")
				return refused(out, err)
			})
		}),
		s.step("ssh is refused", func() error {
			out, err := s.ssh(ctx, "true")
			return refused(out, err)
		}),
		s.step("the grant's files are gone", func() error {
			out, err := s.db1.Sh(ctx, "find /run/curfew/sudoers.d /run/curfew/ssh/principals /run/curfew/managed /run/curfew/home /run/userdb -mindepth 1; find / -xdev -user 70001 2>/dev/null; true")
			if err == nil && strings.TrimSpace(out) != "" {
				err = errors.New(out)
			}
			return err
		}),
	)
}

// told shows the whole story of the grant.
func (s *story) told(ctx context.Context) error {
	var page string
	err := s.step("curfew timeline tells it whole; db1's signed receipt says that nothing is left", func() error {
		return s.until(ctx, "the receipt", 10*time.Second, func() error {
			var err error
			page, _, err = s.fleet.People["ben"].Run(ctx, "", "timeline", s.grant)
			for _, w := range []string{"asked", "approved", "signed", "installed", "login", "exec", "removed", "nothing is left; signed by db1"} {
				if err == nil && !strings.Contains(page, w) {
					err = fmt.Errorf("%q is not in\n%s", w, page)
				}
			}
			return err
		})
	})
	fmt.Println()
	for line := range strings.Lines(page) {
		fmt.Printf("         %s", line)
	}
	return err
}

func (s *story) revoke(ctx context.Context) error {
	s.chapter("7. a second round, ended by curfew revoke")
	return errors.Join(
		s.step("ana asks for db-root, ben approves", func() error {
			if err := s.askFor(ctx, "db-root", "20m"); err != nil {
				return err
			}
			return s.yes(ctx)
		}),
		s.step("sudo sh -c 'nohup sleep 1000 &' works under this role", func() error {
			return s.until(ctx, "the grant", 5*time.Second, func() error {
				if err := s.children(ctx, 1); err == nil {
					return nil
				}
				_, err := s.ssh(ctx, "sudo sh -c 'nohup sleep 1000 >/dev/null 2>&1 &'")
				return errors.Join(err, s.children(ctx, 1))
			})
		}),
		s.step("cleo revokes it", func() error {
			_, _, err := s.fleet.People["cleo"].Run(ctx, "", "revoke", s.grant, "--why", "not needed any more")
			return err
		}),
		s.step("the child is dead", func() error {
			return s.until(ctx, "the end", 3*time.Second, func() error { return s.children(ctx, 0) })
		}),
		s.gone(ctx), s.told(ctx),
	)
}
