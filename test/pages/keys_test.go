package main

import "testing"

// focused is what has the focus, as a screen reader tells it: its role and its
// name.
func (v *tab) focused() string {
	v.t.Helper()
	at := v.must("Runtime.evaluate", map[string]any{"expression": "document.activeElement"})["result"].(map[string]any)["objectId"]
	nodes := v.must("Accessibility.getPartialAXTree", map[string]any{"objectId": at, "fetchRelatives": false})["nodes"].([]any)
	told := ""
	for _, part := range []string{"role", "name"} {
		if p, ok := nodes[0].(map[string]any)[part].(map[string]any); ok {
			told += " " + p["value"].(string)
		}
	}
	return told[min(1, len(told)):]
}

// reach goes from one control to the next until it comes to the one that is
// told like that.
func (v *tab) reach(want string) {
	v.t.Helper()
	var passed []string
	for range 80 {
		v.press("Tab", 9)
		at := v.focused()
		if at == want {
			return
		}
		passed = append(passed, at)
	}
	v.t.Fatalf("%q is not reached by keyboard; what is: %q", want, passed)
}

// From a link to an approval, and back to the asker, with no mouse and no
// reload.
func TestByKeyboard(t *testing.T) {
	w := newTown(t)
	pin, err := w.pin(t.Context())
	must(t, err)
	c := startChrome(t, pin)
	ana, ben := invited(t, w, c, "ana", "Ana Ortiz", desktop), invited(t, w, c, "ben", "Ben Okafor", desktop)
	ana.visit("/")
	ana.press("Tab", 9)
	if at := ana.focused(); at != "link Skip to the content" {
		t.Errorf("the first is %q", at)
	}
	ana.reach("link Ask for db-admin")
	ana.press("Enter", 13)
	ana.sees("What it gives you")
	ana.reach("textbox Why")
	ana.must("Input.insertText", map[string]any{"text": "the disk of db1 is full"})
	ana.reach("button Ask with passkey")
	ana.press("Enter", 13)
	ana.sees("waits for approval")
	path := ana.eval("location.pathname").(string)
	ana.eval("window.loaded = true")

	ben.must("Network.clearBrowserCookies", nil)
	ben.visit(path)
	ben.sees("Touch your passkey")
	ben.reach("button Sign in with passkey")
	ben.press("Enter", 13)
	ben.sees("the disk of db1 is full")
	ben.reach("button Approve with passkey")
	ben.press("Enter", 13)
	ben.sees("in place: it can be used")
	ana.wait("she hears it", "document.querySelector('[role=status]').textContent === 'db-admin for ana: granted'")

	if ana.eval("window.loaded") != true {
		t.Error("she hears it of a page that was loaded anew")
	}
	ana.visit("/access")
	ana.reach("button Revoke db-admin of ana")
	ana.press("Enter", 13)
	ana.sees("Nobody has anything")
	ben.sees("taken away, and the host signed that nothing is left")
	ana.visit("/")
	ana.reach("button Ask again for db-admin as last time, with passkey")
	ana.press("Enter", 13)
	ana.sees("waits for approval")
}

// What changes on a page takes nothing away from whoever is at it.
func TestNothingThatIsTypedIsLost(t *testing.T) {
	w := newTown(t)
	pin, err := w.pin(t.Context())
	must(t, err)
	c := startChrome(t, pin)
	r, err := w.add(t.Context(), "ben", "Ben Okafor", true)
	must(t, err)
	ben := c.open(t, w.origin, desktop)
	ben.enrol(r.Link)
	ana, cleo := enrolled(t, w, "ana"), enrolled(t, w, "cleo")
	path := ana.asks("db-root", "nobody foresaw it")
	ben.visit(path)
	ben.sees("Decide")
	ben.eval("document.querySelector('#decide details').open = true")
	ben.click("#decide [name=for][value='15m0s']")
	ben.write("#decide [name=note]", "only the disk")
	ben.eval("document.querySelector('#decide [name=note]').setSelectionRange(4, 4)")
	cleo.pass(path+"/approve", cleo.yes(path))
	ben.sees("approved by cleo")
	ben.must("Input.insertText", map[string]any{"text": " of"})
	if got := ben.eval(`[document.activeElement.value, document.querySelector('#decide [name=for]:checked').value, document.querySelector('#decide details').open].join('|')`); got != "only of the disk|15m0s|true" {
		t.Errorf("after somebody else's word: %v", got)
	}

	// A host is found to be broken, and mended, while somebody looks at it.
	ben.visit("/fleet")
	ben.sees("Its doctor found nothing wrong")
	db1 := w.hosts["db1"]
	db1.finds(unwiredSudo)
	ben.sees("To mend it there, as the host itself says: curfew-agent install")
	ben.sees("1\nwith trouble")
	ben.eval("document.querySelector('#hosts summary').focus()")
	db1.finds()
	ben.sees("0\nwith trouble")
	if at := ben.eval("document.activeElement.id"); at != "main" {
		t.Errorf("what had the focus is gone, and it went to %q", at)
	}
}
