package main

import (
	"testing"

	"curfew.internal/wire/api"
)

// invited is a person who has a link to enrol with, in a browser.
func invited(t *testing.T, town *town, c *chrome, name, full string, d device) *tab {
	t.Helper()
	r, err := town.add(t.Context(), name, full, false)
	must(t, err)
	v := c.open(t, town.origin, d)
	v.must("Page.navigate", map[string]any{"url": r.Link})
	v.sees("Enrol a passkey")
	v.click("[data-passkey]")
	v.sees("Hello")
	return v
}

func TestAskApproveEnd(t *testing.T) {
	town, err := settle(t.Context(), t.TempDir(), "", t.Output())
	must(t, err)
	t.Cleanup(func() { must(t, town.leave()) })
	db1, err := town.found(t.Context(), "db1", map[string]string{"tier": "db"})
	must(t, err)
	pin, err := town.pin(t.Context())
	must(t, err)
	c := startChrome(t, pin)
	ana := invited(t, town, c, "ana", "Ana Ortiz", desktop)
	ben := invited(t, town, c, "ben", "Ben Okafor", phone)

	ana.visit("/ask/db-admin")
	ana.write("[name=why]", "the disk of db1 is full")
	ana.eval("document.querySelector('[data-passkey]').focus()")
	ana.press("Enter", 13)
	ana.sees("waits for approval")
	path := ana.eval("location.pathname").(string)

	ben.visit(path)
	ben.sees("the disk of db1 is full")
	ben.shoot("approve-phone")
	ben.click(".deeds [data-passkey]")
	ben.sees("in place: it can be used")
	ana.sees("in place: it can be used") // without a reload
	q, err := town.ada.GetRequest(t.Context(), &api.GetRequestRequest{Id: path[len("/requests/"):]})
	must(t, err)
	if q.Approvals[0].Person != "ben" || q.Approvals[0].Factor != "passkey" || !db1.holds(q.Grant) {
		t.Errorf("%v", q)
	}
	must(t, db1.run(q.Grant, []string{"/usr/bin/systemctl", "restart", "postgresql"}))
	ana.sees("/usr/bin/systemctl restart postgresql")
	ana.shoot("granted-desktop")
	ben.click(".stop")
	ben.sees("taken away, and the host signed that nothing is left")
	ana.sees("taken away, and the host signed that nothing is left")
}
