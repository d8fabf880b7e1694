package packaging

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"curfew.internal/test/lab"
	"curfew.internal/test/need"
)

// byRPM installs, reinstalls and removes packages in a root file system of
// their own. No systemd runs there, and rpm's books know nothing that they
// could need: what they ask for is looked at elsewhere.
const byRPM = `
dir=$1 lower=$2 look=$3 root=$1/root
shift 3
mkdir "$dir/up" "$dir/work" "$root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$dir/up,workdir=$dir/work" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
within() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/root "$@"; }
books() { rpm --root "$root" --dbpath /var/lib/rpm "$@"; }
within mkdir -p /usr/lib64/security /usr/share/man/man1 /usr/share/man/man8 # every host with rpm has them
books --initdb
within sh -c "$look" >"$dir/before"
books --install --nodeps "$@"
within sh -c "$look" >"$dir/installed"
for p in curfew curfew-agent curfew-server; do
	within "$p" version
	books --verify --nodeps "$p"
done
within runuser -u curfew-server -- test -w /var/lib/curfew-server
books --reinstall --nodeps "$@"
within sh -c "$look" >"$dir/again"
books --erase --nodeps curfew curfew-agent curfew-server
within sh -c "$look" >"$dir/erased"
within rm -rf /etc/curfew /var/lib/curfew /etc/curfew-server /etc/curfew-server-secrets /var/lib/curfew-server
within userdel curfew-server
within sh -c "$look" >"$dir/after"
`

func TestLifeByRPM(t *testing.T) {
	need.Nspawn(t)
	need.Program(t, "rpm", "chroot", "gcc", "objdump")
	lower, err := lab.Root(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	args := []string{"-mn", "--propagation", "private", "bash", "-euo", "pipefail", "-c", byRPM, "by-rpm", dir, lower, lab.TakeSnapshot}
	said := output(t.Context(), t, "unshare", append(args, packages(t, present(t), "*.x86_64.rpm")...)...)
	if n := strings.Count(said, "0.9.2"); n < 3 {
		t.Errorf("%d of 3 programs say their version: %s", n, said)
	}
	at := map[string]lab.Snapshot{}
	for _, name := range []string{"before", "installed", "again", "erased", "after"} {
		if at[name], err = lab.ParseSnapshot(read(t, filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, made := range []string{
		"/usr/bin/curfew", "/usr/bin/curfew-agent", "/usr/lib64/security/pam_curfew.so", "/usr/lib/systemd/system/curfew-server.service",
		"/etc/curfew", "/var/lib/curfew-server", "/run/curfew/sudoers.d",
	} {
		if at["before"][made] != "" || at["installed"][made] == "" {
			t.Errorf("%s was there before, or is not after the installation", made)
		}
	}
	for _, c := range at["installed"].Changes(at["again"]) {
		t.Errorf("by reinstalling: %s", c)
	}
	// What it leaves is what docs/packages.md says to remove by hand.
	for _, c := range at["before"].Changes(at["erased"]) {
		name, _, _ := strings.Cut(c, ":")
		if !slices.Contains([]string{
			"/etc/curfew", "/var/lib/curfew", "/etc/curfew-server", "/etc/curfew-server-secrets", "/var/lib/curfew-server",
			"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "getent passwd",
		}, name) {
			t.Errorf("left: %s", c)
		}
	}
	for _, c := range at["before"].Changes(at["after"]) {
		t.Error(c)
	}
}
