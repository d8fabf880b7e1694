package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"curfew.internal/controlplane"
)

// A role for which another person is asked the first time that somebody has it.
const atFirst = `roles:
  db-first: {description: Restart a database, hosts: {tier: db}, commands: [/usr/bin/systemctl restart cron], max_duration: 1h, approval: [{by: [ben]}, {by: [cleo], when: risk.first_time}]}
eligible:
  - {role: db-first, people: [ana]}
`

// Whoever asks, and whoever decides, reads why one more person does.
func TestPagesTellWhyMoreApprove(t *testing.T) {
	w, err := settle(t.Context(), t.TempDir(), "", t.Output(), func(c *controlplane.Config) {
		must(t, os.WriteFile(filepath.Join(c.PolicyDir, "first.yaml"), []byte(atFirst), 0o600))
	})
	must(t, err)
	t.Cleanup(func() { must(t, w.leave()) })
	_, err = w.pin(t.Context()) // the pages are up
	must(t, err)
	_, err = w.found(t.Context(), "db1", map[string]string{"tier": "db"})
	must(t, err)
	ana, ben, cleo := enrolled(t, w, "ana"), enrolled(t, w, "ben"), enrolled(t, w, "cleo")
	reads := func(f *forms, path, text string) {
		t.Helper()
		if a := f.get(path); !strings.Contains(a.body, text) {
			t.Errorf("%s does not say %q: %d %s", path, text, a.StatusCode, a.body)
		}
	}
	reads(ana, "/ask/db-first", "1 of cleo, if the role was never granted to who asks")
	path := ana.asks("db-first", "disk full")
	for _, f := range []*forms{ana, ben, cleo} {
		reads(f, path, "because ana was never granted this role before")
	}
	ben.pass(path+"/approve", ben.yes(path))
	reads(ana, path, "It waits for 1 of: cleo; this step is asked because ana was never granted this role before.")
	cleo.pass(path+"/approve", cleo.yes(path))
	if got := state(t, w, path); got != "issued" {
		t.Fatal(got)
	}
	path = ana.asks("db-first", "again")
	if a := ana.get(path); strings.Contains(a.body, "Why more approve") {
		t.Errorf("it is not the first time: %s", a.body)
	}
	ben.pass(path+"/approve", ben.yes(path))
	if got := state(t, w, path); got != "issued" {
		t.Error(got)
	}
}
