package host

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"curfew.internal/agent/host/remains"
)

// leave writes a file below the machine's root.
func leave(t *testing.T, h *Host, name string, mode os.FileMode, owner int) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(h.path(name)), 0o755))
	must(t, os.WriteFile(h.path(name), nil, 0o600))
	must(t, os.Chown(h.path(name), owner, owner))
	must(t, os.Chmod(h.path(name), mode))
}

// after is a machine after a session, and the trace of it.
func after(t *testing.T) (*Host, Trace) {
	t.Helper()
	h := machine(t)
	for _, dir := range []string{"etc/sudoers.d", "var/lib/dpkg/info"} {
		must(t, os.MkdirAll(h.path(dir), 0o755))
	}
	must(t, os.WriteFile(h.path("etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\n"), 0o600))
	leave(t, h, "var/lib/dpkg/info/x.list", 0o644, 0)
	began := time.Now()
	before, err := h.Snapshot(t.Context())
	must(t, err)
	leave(t, h, "etc/sudoers.d/hers", 0o440, 0)
	leave(t, h, "srv/sh", os.ModeSetuid|0o755, 0)
	leave(t, h, "tmp/note", 0o600, uid)
	leave(t, h, "srv/note", 0o600, uid)
	return h, Trace{
		Person: "cfw-ana", UID: uid, Since: began, Before: before, Own: func() bool { return true }, Begin: func([]byte) {},
	}
}

// paths are the findings without their details.
func paths(found []string) []string {
	var all []string
	for _, f := range found {
		name, _, _ := strings.Cut(f, ": ")
		all = append(all, name)
	}
	return all
}

func TestWhatGoesIsTheRolesToSay(t *testing.T) {
	const rule, sh, note, other = "sudo-rule /etc/sudoers.d/hers", "setuid /srv/sh", "temp-file /tmp/note", "owned-file /srv/note"
	for name, c := range map[string]struct {
		change        func(*Trace)
		removed, left []string
	}{
		"a role that says nothing": {func(*Trace) {}, []string{note}, []string{rule, sh, other}},
		"a role that lists kinds":  {func(t *Trace) { t.Remove = []string{"owned-file", "setuid"} }, []string{sh, other, note}, []string{rule}},
		"another grant of hers": {func(t *Trace) {
			t.Remove, t.Own = []string{"setuid"}, func() bool { return false }
		}, []string{sh}, []string{rule, other, note}},
	} {
		t.Run(name, func(t *testing.T) {
			h, trace := after(t)
			c.change(&trace)
			found, err := h.Leavings(t.Context(), trace)
			must(t, err)
			if removed, left := paths(found.Removed), paths(found.Left); !same(removed, c.removed) || !same(left, c.left) {
				t.Errorf("removed %q, left %q", removed, left)
			}
			for _, f := range []string{"srv/sh", "tmp/note", "srv/note", "etc/sudoers.d/hers"} {
				_, err := os.Lstat(h.path(f))
				if gone := slices.ContainsFunc(c.removed, func(r string) bool { return strings.HasSuffix(r, " /"+f) }); gone != os.IsNotExist(err) {
					t.Errorf("%s: %v", f, err)
				}
			}
		})
	}
}

func same(x, y []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(x)), slices.Sorted(slices.Values(y)))
}

// Removals of somebody who died on the way are told by whoever looks again.
func TestARemovalThatNobodyToldOfIsTold(t *testing.T) {
	h, trace := after(t)
	var plan []byte
	trace.Begin = func(b []byte) { plan = b }
	first, err := h.Leavings(t.Context(), trace)
	must(t, err)
	leave(t, h, "tmp/more", 0o600, uid)
	trace.Begun = plan
	second, err := h.Leavings(t.Context(), trace)
	must(t, err)
	if got := paths(second.Removed); !same(got, append(paths(first.Removed), "temp-file /tmp/more")) {
		t.Errorf("%q", got)
	}
	var all []remains.Finding
	if err := json.Unmarshal(plan, &all); err != nil || len(all) != 2 {
		t.Errorf("the next plan holds the one before: %v %v", all, err)
	}
}

func TestASnapshotThatIsSpoiledIsNone(t *testing.T) {
	h, trace := after(t)
	trace.Before, trace.Begun = []byte("{"), []byte("[")
	found, err := h.Leavings(t.Context(), trace)
	if err != nil || !strings.Contains(strings.Join(found.Skipped, ";"), "cannot be read") || len(found.Left) == 0 {
		t.Error(found, err)
	}
}

func TestAReceiptTellsWhatActsFirstAndNotAll(t *testing.T) {
	var found []remains.Finding
	for i := range told {
		found = append(found, remains.Finding{Kind: remains.TempFile, Path: fmt.Sprint("/tmp/", i)})
	}
	found = append(found, remains.Finding{Kind: remains.Setuid, Path: "/sh", Detail: strings.Repeat("é", brief)})
	all := words(found)
	if len(all) != told+1 || !strings.HasPrefix(all[0], "setuid /sh") || len(all[0]) > brief+3 || all[told] != "and 1 more" {
		t.Error(len(all), all[0], all[told])
	}
}
