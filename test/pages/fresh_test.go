package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"curfew.internal/controlplane"
	"curfew.internal/wire/api"
)

// A role that a request may be made for on an earlier proof.
const onEarlier = `roles:
  db-look: {description: See what a database does, hosts: {tier: db}, commands: [/usr/bin/systemctl restart cron], max_duration: 1h, approval: {by: [ben]}, freshness: 10m}
eligible:
  - {role: db-look, people: [ana]}
`

// Where an earlier proof counts, who asks by keyboard touches no passkey, on a
// phone too; who approves reads so. Another browser of hers has to touch it.
func TestAnEarlierProofOnThePages(t *testing.T) {
	w, err := settle(t.Context(), t.TempDir(), "", t.Output(), func(c *controlplane.Config) {
		must(t, os.WriteFile(filepath.Join(c.PolicyDir, "earlier.yaml"), []byte(onEarlier), 0o600))
	})
	must(t, err)
	t.Cleanup(func() { must(t, w.leave()) })
	_, err = w.found(t.Context(), "db1", map[string]string{"tier": "db"})
	must(t, err)
	pin, err := w.pin(t.Context())
	must(t, err)
	c := startChrome(t, pin)
	ana, ben := invited(t, w, c, "ana", "Ana Ortiz", desktop), invited(t, w, c, "ben", "Ben Okafor", desktop)
	ana.visit("/ask/db-look")
	ana.reach("button Ask with passkey") // to begin with, enrolling is no proof for a request
	ana.visit("/ask/db-admin")
	ana.write("[name=why]", "the disk of db1 is full")
	ana.click("[data-passkey]")
	ana.sees("waits for approval")

	ana.at("ask-earlier", "/ask/db-look", "You proved yourself less than a minute ago")
	ana.look(phone)
	ana.visit("/ask/db-look")
	ana.reach("textbox Why")
	ana.must("Input.insertText", map[string]any{"text": "and what does it wait for"})
	ana.reach("button Ask")
	ana.eval(`{ const get = fetch; fetch = async (...call) => { fetch = get; await get(...call); throw new TypeError(); } }`) // the answer is lost
	ana.press("Enter", 13)
	ana.sees("The server does not answer: try again")
	ana.press("Enter", 13)
	ana.sees("None of its own: proved with passkey less than a minute before, for an earlier request")
	path := ana.eval("location.pathname").(string)
	all, err := w.ada.ListRequests(t.Context(), &api.ListRequestsRequest{All: true})
	must(t, err)
	if len(all.Requests) != 2 { // the other one is that which she proved
		t.Errorf("asked twice for want of an answer: %v", all.Requests)
	}
	ben.at("request-earlier", path, "None of its own: proved with passkey less than a minute before, for an earlier request")
	ana.at("home-earlier", "/", "Ask again")
	ana.reach("button Ask again for db-look as last time, on your proof of less than a minute ago")
	ana.press("Enter", 13)
	ana.sees("waits for approval")

	// Who wants to prove herself all the same can, by keyboard too.
	ana.visit("/ask/db-look")
	ana.write("[name=why]", "the other log, too")
	ana.reach("DisclosureTriangle Prove yourself anew")
	ana.press("Enter", 13)
	ana.accessible("ask-earlier, open")
	ana.reach("button Ask with passkey")
	ana.press("Enter", 13)
	ana.sees("waits for approval")
	if text := ana.text(); strings.Contains(text, "None of its own") {
		t.Errorf("proved anew: %s", text)
	}
}
