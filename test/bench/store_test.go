package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the bare engine, as the store has it

	"curfew.internal/controlplane/roster"
	"curfew.internal/controlplane/store"
	"curfew.internal/dsse"
	"curfew.internal/grant"
	"curfew.internal/test/postgres"
)

var storeKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))

// storeSigner is a grant key.
type storeSigner struct{}

func (storeSigner) SignGrant(g grant.Grant) []byte {
	return dsse.Sign(grant.Type, g.Bytes(), storeKey).Bytes()
}

func (storeSigner) SignSet(s grant.Set) []byte {
	return dsse.Sign(grant.SetType, s.Bytes(), storeKey).Bytes()
}

// rounds is how often each thing is done; hosts share the grants between them,
// so that the set of each stays small.
const rounds, hosts = 300, 100

func hostOf(n int) string { return fmt.Sprintf("db%d", n%hosts) }

// BenchmarkStore compares requests and approvals, each kept with its steps in
// the record and an approval with the signed grant and set of its host, with
// what the bare engine does: a transaction with one row of the size of an
// envelope. Both engines write to the disk before they answer.
func BenchmarkStore(b *testing.B) {
	server, err := postgres.Start(b.Context(), "fsync=on")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = server.Stop() }()
	name, err := server.Database(b.Context(), "")
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "db")
	for _, e := range []struct{ name, place, driver, source string }{
		{"SQLite", file, "sqlite", "file:" + file + ".bare?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"},
		{"PostgreSQL", server.URL(name), "pgx", server.URL(name)},
	} {
		bare := perSecond(b, insert(b, e.driver, e.source))
		s := storeScene(b, e.place)
		asked := perSecond(b, func(ctx context.Context, n int) error { return request(ctx, s, n) })
		approved := perSecond(b, func(ctx context.Context, n int) error { return approval(ctx, s, n) })
		fmt.Printf("%-10s  inserts of the bare engine %5.0f/s  requests %5.0f/s, ratio %.2f  approvals %5.0f/s, ratio %.2f  n=%d each\n",
			e.name, bare, asked, asked/bare, approved, approved/bare, rounds)
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func perSecond(b *testing.B, do func(ctx context.Context, n int) error) float64 {
	b.Helper()
	begun := time.Now()
	for n := range rounds {
		if err := do(b.Context(), n); err != nil {
			b.Fatal(err)
		}
	}
	return rounds / time.Since(begun).Seconds()
}

func insert(b *testing.B, driver, source string) func(ctx context.Context, n int) error {
	b.Helper()
	db, err := sql.Open(driver, source)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	kind, query := "BLOB", "INSERT INTO bare VALUES (?, ?)"
	if driver == "pgx" {
		kind, query = "BYTEA", "INSERT INTO bare VALUES ($1, $2)"
	}
	if _, err := db.ExecContext(b.Context(), "CREATE TABLE bare (n BIGINT PRIMARY KEY, envelope "+kind+" NOT NULL)"); err != nil {
		b.Fatal(err)
	}
	envelope := make([]byte, 1500)
	return func(ctx context.Context, n int) error {
		_, err := db.ExecContext(ctx, query, n, envelope)
		return err
	}
}

func storeScene(b *testing.B, place string) *store.Store {
	b.Helper()
	now := time.Now()
	s, err := store.Open(b.Context(), place, "lab")
	if err != nil {
		b.Fatal(err)
	}
	s.Use(storeSigner{})
	for _, name := range []string{"ana", "ben"} {
		if _, err := s.AddPerson(b.Context(), roster.Person{Name: name}, roster.Act{By: "root", At: now}); err != nil {
			b.Fatal(err)
		}
	}
	for n := range hosts {
		k := roster.JoinToken{Hash: [32]byte{byte(n)}, Labels: map[string]string{}, Expires: now.Add(time.Hour)}
		if err := s.PutJoinToken(b.Context(), k, now); err != nil {
			b.Fatal(err)
		}
		h := roster.Host{Name: hostOf(n), ReceiptKey: storeKey.Public().(ed25519.PublicKey), Identity: hostOf(n)}
		if _, err := s.UseJoinToken(b.Context(), k.Hash, h, now); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// name numbers requests and grants.
func name(prefix string, n int) string {
	text := []byte(prefix + "-aaaaaaaaaaaaaaaa")
	for i := len(text) - 1; n > 0; i-- {
		text[i] = 'a' + byte(n%26)
		n /= 26
	}
	return string(text)
}

func request(ctx context.Context, s *store.Store, n int) error {
	now := time.Now()
	_, err := s.Ask(ctx, roster.Request{
		Asked: roster.Asked{
			Role: "ops", Hosts: []string{hostOf(n)}, Duration: time.Hour, Reason: "disk full", Factor: "totp", Needed: 1, Policy: "v1",
			Resolved: grant.Role{Name: "ops", RunAs: []string{"root"}, Commands: []grant.Command{{Path: "/bin/true"}}},
		},
		ID: name("r", n), Person: "ana", Digest: make([]byte, 32), AskedAt: now, LapsesAt: now.Add(time.Hour), State: "asked",
	}, now, roster.Change{Steps: []roster.Decision{{At: now, What: "asked", Person: "ana", Text: "disk full"}}})
	return err
}

func approval(ctx context.Context, s *store.Store, n int) error {
	now := time.Now().UTC().Truncate(time.Second)
	_, err := s.Change(ctx, name("r", n), now, func(r roster.Request) (roster.Change, error) {
		return roster.Change{
			State: "issued", Approval: &roster.Approval{Person: "ben", Factor: "totp", At: now},
			Grant: &grant.Grant{
				ID: name("g", n), Fleet: "lab", Person: grant.Person{Name: "ana", UID: grant.UIDMin}, Role: r.Resolved, Hosts: r.Hosts,
				NotBefore: now, NotAfter: now.Add(time.Hour), Request: r.ID, Digest: r.Digest, Reason: r.Reason,
				Asked: grant.Evidence{Person: "ana", Factor: "totp", At: now}, Approvals: []grant.Evidence{{Person: "ben", Factor: "totp", At: now}},
			},
			Steps: []roster.Decision{{At: now, What: "approved", Person: "ben"}, {At: now, What: roster.SignedStep}},
		}, nil
	})
	return err
}
