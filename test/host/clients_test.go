package host

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"curfew.internal/test/lab"
)

// carried: scp (which speaks sftp) and a forward without a command.
func carried(t *testing.T, s *scene) {
	t.Helper()
	p := s.person(t, "yan")
	id := s.grant(t, p, "ops", "10m")
	dir := t.TempDir()
	there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
	if err := os.WriteFile(there, []byte("what she carries"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{there, "db1:up"}, {"db1:up", back}} {
		if err := p.Carry(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(back); err != nil || string(b) != "what she carries" {
		t.Errorf("came back as %q, %v", b, err)
	}
	if _, err := p.Start(t.Context(), filepath.Join(dir, "out"), "ssh", "-NL", "17000:127.0.0.1:22", "db1"); err != nil {
		t.Fatal(err)
	}
	banner := func() error {
		out, err := s.fleet.In(t.Context(), lab.Place, "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/17000; head -c 3 <&3").Output()
		if err == nil && string(out) != "SSH" {
			err = errors.New(string(out))
		}
		return err
	}
	s.until(t, "forward", banner)
	if _, _, err := s.fleet.People["cleo"].Run(t.Context(), "", "revoke", id); err != nil {
		t.Fatal(err)
	}
	s.nothing(t, "yan")
	if err := banner(); err == nil {
		t.Error("the forward outlived the grant")
	}
	if err := p.Carry(t.Context(), there, "db1:up"); err == nil {
		t.Error("scp outlived the grant")
	}
	s.clean(t, id)
}
