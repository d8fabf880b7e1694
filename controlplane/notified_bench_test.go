package controlplane

import (
	"crypto/ed25519"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"curfew.internal/controlplane/notify"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// BenchmarkNotified measures from when a request begins to be kept until a
// receiver on this machine has its notification, 200 times.
func BenchmarkNotified(b *testing.B) {
	const times = 200
	came := make(chan time.Time, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { came <- time.Now() }))
	b.Cleanup(receiver.Close)
	file := filepath.Join(b.TempDir(), "to")
	must(b, os.WriteFile(file, []byte(receiver.URL), 0o600))
	w, ctx := newTown(b), b.Context()
	w.also = func(c *Config) {
		c.Notify = []notify.Target{{Name: "chat", Form: notify.FormSlack, ToFile: file, About: []string{notify.AboutRequests}}}
	}
	w.start(b)
	store, now := w.server.store, time.Now()
	_, err := store.AddPerson(ctx, roster.Person{Name: "ana"}, roster.Act{By: "ada", At: now})
	must(b, err)
	must(b, store.PutJoinToken(ctx, roster.JoinToken{Expires: now.Add(time.Hour), By: "ada"}, now))
	_, err = store.UseJoinToken(ctx, [32]byte{}, roster.Host{Name: "db1", ReceiptKey: make([]byte, ed25519.PublicKeySize), Identity: "id"}, now)
	must(b, err)
	until(b, "it tells what comes", func() bool { // a new target is told from then on
		_, found, err := store.Forwarded(ctx, "notify/chat")
		must(b, err)
		return found
	})
	for b.Loop() {
		took := make([]time.Duration, times)
		for i := range took {
			id, began := fmt.Sprintf("r-%d", i), time.Now()
			_, err := store.Ask(ctx, roster.Request{
				Asked: roster.Asked{Role: "db", Hosts: []string{"db1"}, Duration: time.Hour, Resolved: grant.Role{Name: "db"}, Needed: 1},
				ID:    id, Person: "ana", State: "asked", Digest: make([]byte, 32), AskedAt: began, LapsesAt: began.Add(time.Hour),
			}, began, roster.Change{Steps: []roster.Decision{{At: began, What: "asked", Person: "ana"}}})
			must(b, err)
			took[i] = (<-came).Sub(began)
		}
		slices.Sort(took)
		b.Logf("a request -> its notification at the receiver   median %v  p99 %v  least %v  n=%d", took[times/2], took[times*99/100], took[0], times)
	}
}
