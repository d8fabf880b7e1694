package main

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
	"curfew.internal/test/postgres"
)

// batches is how many batches of events each keeps, in turns, and batch how many
// events are in one, as hosts send them.
const batches, batch = 40, 500

// BenchmarkEvents compares events that a host sends, each with its place in the log's
// tree and in what is searched, with what the bare engine does: one transaction
// with as many rows, by one statement that is prepared once.
func BenchmarkEvents(b *testing.B) {
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
		s, bare := storeScene(b, e.place), insertBatch(b, e.driver, e.source)
		var ours, theirs time.Duration
		for n := range batches {
			rows := events(n)
			records := make([]roster.Record, batch)
			for i, raw := range rows {
				records[i] = roster.Record{Seq: uint64(n*batch + i + 1), Entry: raw}
			}
			begun := time.Now()
			if err := bare(b.Context(), n, rows); err != nil {
				b.Fatal(err)
			}
			theirs += time.Since(begun)
			begun = time.Now()
			if _, err := s.KeepRecords(b.Context(), hostOf(0), "o", records); err != nil {
				b.Fatal(err)
			}
			ours += time.Since(begun)
		}
		const all = batches * batch
		fmt.Printf("%-10s  events to the bare engine %6.0f/s  to the store %6.0f/s, ratio %.2f  n=%d each, in batches of %d\n",
			e.name, all/theirs.Seconds(), all/ours.Seconds(), theirs.Seconds()/ours.Seconds(), all, batch)
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// events are starts of programs, as a host encodes them.
func events(n int) [][]byte {
	all := make([][]byte, batch)
	for i := range all {
		all[i] = ledger.Entry{
			Kind: ledger.Exec, At: time.Now(), Host: hostOf(0), Person: "ana", Session: 9, SessionSeq: uint64(n*batch + i + 1),
			Process: &ledger.Process{
				PID: 4000, PPID: 7, Comm: "systemctl", Path: "/usr/bin/systemctl", Cwd: "/home/ana", TTY: "pts/0",
				Argv: []string{"systemctl", "restart", fmt.Sprintf("unit-%d.service", i), "--now"}, Device: 64769, Inode: 300, Links: 1,
			},
		}.Bytes()
	}
	return all
}

func insertBatch(b *testing.B, driver, source string) func(ctx context.Context, n int, rows [][]byte) error {
	b.Helper()
	db, err := sql.Open(driver, source)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	kind, query := "BLOB", "INSERT INTO bare_events VALUES (?, ?)"
	if driver == "pgx" {
		kind, query = "BYTEA", "INSERT INTO bare_events VALUES ($1, $2)"
	}
	if _, err := db.ExecContext(b.Context(), "CREATE TABLE bare_events (n BIGINT PRIMARY KEY, entry "+kind+" NOT NULL)"); err != nil {
		b.Fatal(err)
	}
	return func(ctx context.Context, n int, rows [][]byte) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // after the commit it does nothing
		insert, err := tx.PrepareContext(ctx, query)
		if err != nil {
			return err
		}
		for i, raw := range rows {
			if _, err := insert.ExecContext(ctx, n*batch+i, raw); err != nil {
				return err
			}
		}
		return tx.Commit()
	}
}
