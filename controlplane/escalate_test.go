package controlplane

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

const passesOn = `labels: {tier: [db]}
roles:
  db:
    hosts: {tier: db}
    commands: [/usr/bin/true]
    max_duration: 1h
    reason: optional
    approval: {by: [ben], count: 1, escalate: {after: 1m, to: [eve]}}
eligible:
  - {role: db, people: [ana]}
`

// A server tells by itself that others may approve what nobody approved in
// time, also if that was while none ran.
func TestServerTellsOfEscalations(t *testing.T) {
	w, ctx := newTown(t), t.Context()
	must(t, os.RemoveAll(w.plan.Config.PolicyDir))
	must(t, os.Mkdir(w.plan.Config.PolicyDir, 0o700))
	must(t, os.WriteFile(filepath.Join(w.plan.Config.PolicyDir, "policy.yaml"), []byte(passesOn), 0o600))
	w.start(t)
	store, now := w.server.store, time.Now()
	for _, name := range []string{"ana", "ben", "eve"} {
		_, err := store.AddPerson(ctx, roster.Person{Name: name}, roster.Act{By: "ada", At: now})
		must(t, err)
	}
	labels := map[string]string{"tier": "db"}
	must(t, store.PutJoinToken(ctx, roster.JoinToken{Labels: labels, Expires: now.Add(time.Hour), By: "ada"}, now))
	_, err := store.UseJoinToken(ctx, [32]byte{}, roster.Host{Name: "db1", ReceiptKey: make([]byte, ed25519.PublicKeySize), Identity: "id"}, now)
	must(t, err)
	r, err := store.Ask(ctx, roster.Request{
		Asked: roster.Asked{Role: "db", Hosts: []string{"db1"}, Duration: time.Hour, Resolved: grant.Role{Name: "db"}, Needed: 1},
		ID:    "r-1", Person: "ana", State: "asked", Digest: make([]byte, 32), AskedAt: now.Add(-2 * time.Minute), LapsesAt: now.Add(time.Hour),
	}, now, roster.Change{})
	must(t, err)
	until(t, "it is told", func() bool {
		all, err := store.Events(ctx, roster.Search{Kind: "decision", Limit: 100})
		must(t, err)
		for _, e := range all {
			if e.Entry.Request == r.ID && e.Entry.Step == roster.EscalatedStep {
				return strings.HasPrefix(e.Entry.Text, "eve may approve")
			}
		}
		return false
	})
	w.stop(t)
}
