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
	v.enrol(r.Link)
	return v
}

// enrol makes a passkey by a link.
func (v *tab) enrol(link string) {
	v.t.Helper()
	v.must("Page.navigate", map[string]any{"url": link})
	v.sees("Enrol a passkey")
	v.wait("the secret of the link", "document.querySelector('[name=secret]').value && !location.hash") // the script is there
	v.click("[data-passkey]")
	v.sees("Hello")
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
	ben.click(".stop")
	ben.sees("taken away, and the host signed that nothing is left")
	ana.sees("taken away, and the host signed that nothing is left")
}

// ask makes a request on the page, and returns its path.
func (v *tab) ask(why string) string {
	v.t.Helper()
	v.visit("/ask/db-admin")
	v.click("[name=on][value=db1]")
	v.write("[name=why]", why)
	v.write("[name=ticket]", "INC-4121")
	v.click("[data-passkey]")
	v.sees("waits for approval")
	return v.eval("location.pathname").(string)
}
