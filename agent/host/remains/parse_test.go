package remains

import (
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMounts(t *testing.T) {
	all := parseMounts("21 1 8:1 / / rw shared:1 - ext4 /dev/a rw\n" +
		"22 21 0:5 / /home rw - nfs4 srv:/home rw\n" +
		"23 21 8:1 /srv /bind rw - ext4 /dev/a rw\n" +
		"24 21 8:2 /sub /data rw - xfs /dev/b rw\n" +
		"25 21 8:2 /sub/x /again rw - xfs /dev/b rw\n" +
		"26 21 0:6 / /a\\040b rw - tmpfs x rw\n" +
		"27 21 8:3 / /old rw - ext4 /dev/c rw\n" +
		"28 27 0:7 / /old rw - tmpfs y rw\n" +
		"torn\n29 21 8:3\n")
	var walk []string
	for _, m := range all.local() {
		walk = append(walk, m.point)
	}
	if diff := cmp.Diff([]string{"/", "/data", "/a b", "/old"}, walk); diff != "" {
		t.Error(diff)
	}
	for file, kind := range map[string]string{"/etc": "ext4", "/home/x": "nfs4", "/homes": "ext4", "/old/x": "tmpfs"} {
		if m, ok := all.over(file); !ok || m.kind != kind {
			t.Error(file, m)
		}
	}
}

func TestPassingUnits(t *testing.T) {
	for name, want := range map[string]bool{
		"session-4.scope": true, "session-4.scope.d/50-x.conf": false, "user-70007.slice": true, "user-70007.slice.d/50-TasksMax.conf": false,
		"init.scope": true, "init.scope.d/x.conf": false, "session-4.service": false, "run-r1.service": false, "session-4.timer": false,
		"user@0.service": false, "user@.service.d/x.conf": false, "curfew-end-g.timer": true, "curfew-end-g.timer.d/x.conf": false,
	} {
		if passing("/run/systemd/transient/"+name) != want {
			t.Error(name)
		}
	}
	if passing("/etc/systemd/system/session-4.scope") {
		t.Error("a unit for good")
	}
}

func FuzzMounts(f *testing.F) {
	f.Add("21 1 8:1 / / rw shared:1 - ext4 /dev/a rw\n26 21 0:6 / /a\\040b rw - tmpfs x rw\n28 27 0:7 / /a\\ rw - x y")
	f.Fuzz(func(t *testing.T, text string) {
		all := parseMounts(text)
		for _, m := range all.local() {
			if !m.disk() || !strings.HasPrefix(m.point, "/") {
				t.Error(m)
			}
		}
		if len(all.points()) > len(all) {
			t.Error("more points than mounts")
		}
	})
}

func FuzzHomes(f *testing.F) {
	f.Add("root:x:0:0::/root:/bin/sh\nx:x:1:1::/a/../..:\nnobody:x:1:1::/nonexistent:/bin/false")
	f.Fuzz(func(t *testing.T, text string) {
		for _, home := range parseHomes(text) {
			if !path.IsAbs(home) || home == "/" || home != path.Clean(home) {
				t.Errorf("%q", home)
			}
		}
	})
}

func FuzzIPC(f *testing.F) {
	f.Add("key shmid perms uid cuid\n0 5 600 70007 0\n0 6 600 0 70007\n0 7 600 0 0\n0 8\n")
	f.Fuzz(func(t *testing.T, text string) {
		if ids := parseIPC(text, uid); len(ids) > strings.Count(text, "70007") {
			t.Error(ids)
		}
		for _, m := range parseModules(text) {
			if m == "" || strings.ContainsAny(m, " \n") {
				t.Errorf("%q", m)
			}
		}
	})
}
