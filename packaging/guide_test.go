package packaging

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"curfew.internal/test/lab"
	"curfew.internal/test/need"
	"curfew.internal/test/postgres"
)

// TestGuide types what the pages say, in their order, on hosts that have
// nothing of ours but the packages.
func TestGuide(t *testing.T) {
	need.Nspawn(t)
	need.Program(t, "dpkg-deb", "gcc", "objdump")
	var dist []lab.File
	for _, f := range packages(t, present(t), "*_amd64.deb") {
		dist = append(dist, lab.File{Path: "/root/dist/" + filepath.Base(f), From: f, Mode: 0o644})
	}
	l, err := lab.New(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &town{hosts: map[string]*lab.Host{}, people: []string{"ana", "ben", "cleo", "dora"}, seen: map[string]string{}}
	for name, suite := range map[string]string{
		"plane": lab.Trixie, "db1": lab.Bookworm, "web1": lab.Trixie, "web2": lab.Cloud, "web3": lab.Cloud, "web4": lab.Trixie, "image": lab.Cloud, "laptop": lab.Bookworm,
		"plane2": lab.Bookworm, "witness": lab.Bookworm, "pg1": lab.Bookworm, "pg2": lab.Trixie,
	} {
		if w.hosts[name], err = l.HostOf(t.Context(), suite, name, dist...); err != nil {
			t.Fatal(err)
		}
	}
	address, data := database(t, l)
	w.settle(t, address)
	w.data = data
	w.play = controller(t, l, w.hosts, filepath.Dir(dist[0].From))
	for _, page := range []string{
		"docs/quickstart.md",
		"docs/audit.md",
		"docs/terminals.md",
		"docs/join.md",
		"docs/hardening.md",
		"docs/runbook.md",
		"docs/production.md",
		"docs/postgresql.md",
		"docs/witness.md",
	} {
		if !t.Run(page, func(t *testing.T) { w.follow(t, page) }) {
			for _, h := range []string{"plane", "db1"} {
				out, _ := w.hosts[h].Sh(t.Context(), "journalctl --no-pager -n 40 -u 'curfew*' -u ssh")
				t.Log(h, out)
			}
			return // the next page stands on it
		}
	}
}

// controller gives a folder of this machine in which Ansible is played: it
// reaches the hosts as root. A host's sshd does not listen for a moment while
// it reads anew what it is to ask.
func controller(t *testing.T, l *lab.Lab, hosts map[string]*lab.Host, dist string) func(context.Context, string) (string, error) {
	t.Helper()
	need.Program(t, "ansible-playbook", "openssl", "scp", "ssh-keygen")
	if _, err := l.Join(t.Context(), lab.Place); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	output(t.Context(), t, "ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", key)
	ways := "Host *\nUser root\nIdentityFile " + key + "\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n"
	for name, h := range hosts {
		ways += "Host " + name + " " + nicknames[name] + "\nHostName " + h.Address + "\n"
		if _, err := h.Feed(t.Context(), read(t, key+".pub"), "cat >>/root/.ssh/authorized_keys"); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"ansible.cfg": "[defaults]\ninterpreter_python = /usr/bin/python3\n[ssh_connection]\nretries = 5\nssh_args = -F " + filepath.Join(dir, "ssh") + "\n", "ssh": ways,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"packaging": filepath.Join(repository(t), "packaging"), "dist": dist} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return func(ctx context.Context, script string) (string, error) {
		cmd := l.In(ctx, lab.Place, "bash", "-e", "-o", "pipefail", "-c", "cd "+dir+"\n"+script)
		cmd.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + dir, "LC_ALL=C.UTF-8"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return string(out), err
	}
}

// cluster makes a database of this machine's PostgreSQL and starts it; $1 is
// its folder. Who owns it is known by the socket, and everybody else is asked.
const cluster = `initdb --pgdata "$1/data" --username postgres --auth-local peer --auth-host scram-sha-256 --encoding UTF8 --locale C.UTF-8 --no-sync
pg_ctl --pgdata "$1/data" --log "$1/log" --wait --options "-k $1 -c listen_addresses=* -c fsync=off" start`

// database gives the machine of a database on the hosts' network, and returns
// its address. What is typed there is the owner's, who is not root.
func database(t *testing.T, l *lab.Lab) (address string, types func(context.Context, string) (string, error)) {
	t.Helper()
	need.Program(t, "setpriv", "openssl")
	initdb, err := postgres.Program("initdb")
	if err != nil {
		t.Fatal(err)
	}
	if address, err = l.Join(t.Context(), "db"); err != nil {
		t.Fatal(err)
	}
	dir := strings.TrimSpace(output(t.Context(), t, "mktemp", "-d")) // not below a folder of root's
	output(t.Context(), t, "chown", "postgres:postgres", dir)
	sh := func(ctx context.Context, script string) (string, error) {
		cmd := l.In(ctx, "db", "setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "bash", "-e", "-o", "pipefail", "-c", "cd\n"+script, "bash", dir)
		cmd.Env = []string{"PATH=" + filepath.Dir(initdb) + ":/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + dir, "PGHOST=" + dir, "LC_ALL=C.UTF-8"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return string(out), err
	}
	t.Cleanup(func() {
		_, err := sh(context.WithoutCancel(t.Context()), `pg_ctl --pgdata "$1/data" --mode immediate stop`)
		if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	if _, err := sh(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	return address, sh
}
