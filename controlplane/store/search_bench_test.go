package store

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
	"curfew.internal/test/postgres"
)

var (
	recordSize = flag.Int("record", 100_000, "entries of the record that BenchmarkRecord fills and searches, in 500s")
	recordOn   = flag.String("record-on", "sqlite", "what holds it: sqlite, or postgresql")
	recordIn   = flag.String("record-in", "", "folder in which BenchmarkRecord keeps a record on SQLite for the next run")
)

// filling is what hosts of a fleet send: starts and exits of programs, of 200
// people on 100 hosts over a year, and here and there a rare word.
func filling(n int) ledger.Entry {
	e := ledger.Entry{
		Kind: ledger.Exec, At: noon.Add(time.Duration(n) * 3 * time.Second), Person: fmt.Sprintf("person%d", n/500%200), Grant: fmt.Sprintf("g-%012d", n/500),
		Approvers: []string{"ben"}, Session: uint64(n / 500), SessionSeq: uint64(n%500) + 1,
		Process: &ledger.Process{
			PID: uint32(n), PPID: 7, Comm: "systemctl", Path: fmt.Sprintf("/usr/bin/tool%d", n%300), Cwd: fmt.Sprintf("/home/person%d", n/500%200), TTY: "pts/0",
			Argv: []string{fmt.Sprintf("tool%d", n%300), "restart", fmt.Sprintf("unit-%d.service", n%5000), "--now"}, Device: 64769, Inode: uint64(n % 300), Links: 1,
		},
	}
	switch {
	case n%100_000 == 77:
		e.Process.Argv = []string{"cat", "/etc/shadow"}
	case n%2 == 1:
		e.Kind, e.Process.Argv, e.Process.ExitCode = ledger.Exit, nil, uint32(n/2%20/19)
	}
	return e
}

// BenchmarkRecord fills a record and searches it, and fails where a search reads
// all of it on PostgreSQL. With a folder it keeps a record on SQLite there, and goes
// on filling where the last run ended:
//
//	go test ./controlplane/store -run '^$' -bench Record -benchtime 1x -record 10000000 -record-in FOLDER
func BenchmarkRecord(b *testing.B) {
	if server != nil {
		return // this is the suite's second round, on a server whose disk is memory
	}
	ctx := b.Context()
	place, size := recordPlace(b)
	s, err := Open(ctx, place, "lab")
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	s.Use(signer{})
	last, err := s.LastEvent(ctx)
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	fill(ctx, b, s, int(last), *recordSize)
	took := time.Since(began)
	if filled := *recordSize - int(last); filled > 0 {
		fmt.Printf("%d entries kept in %v: %.0f a second\n", filled, took.Round(time.Second), float64(filled)/took.Seconds())
	}
	if IsURL(place) { // which its own housekeeping does from time to time
		if _, err := s.one.ExecContext(ctx, `VACUUM ANALYZE entries`); err != nil {
			b.Fatal(err)
		}
	}
	fmt.Printf("%d entries, %.0f bytes an entry\n", *recordSize, float64(size(s))/float64(*recordSize))
	for _, c := range []struct {
		name string
		q    roster.Search
	}{
		{"a rare word", roster.Search{Words: []string{"/etc/shadow"}}},
		{"a word of every second entry", roster.Search{Words: []string{"restart"}}},
		{"the beginning of one", roster.Search{Words: []string{"unit-49*"}}},
		{"a frequent word by one person", roster.Search{Words: []string{"restart"}, Person: "person7"}},
		{"two words that seldom meet", roster.Search{Words: []string{"tool7", "unit-4907"}}},
		{"one program's failures on one host", roster.Search{Path: "/usr/bin/tool19", Outcome: roster.Failed, Host: "host7"}},
		{"one host's last day", roster.Search{Host: "host7", Since: filling(*recordSize).At.Add(-24 * time.Hour)}},
		{"a word in one hour of the middle", roster.Search{Words: []string{"tool7"}, Since: filling(*recordSize / 2).At, Until: filling(*recordSize / 2).At.Add(time.Hour)}},
		{"a page from the middle", roster.Search{After: uint64(*recordSize / 2)}},
		{"what is not there", roster.Search{Words: []string{"nothing", "restart"}}},
	} {
		b.Run(c.name, func(b *testing.B) { searches(ctx, b, s, c.q) })
	}
}

// recordPlace is where the record is, and what tells how large it is there.
func recordPlace(b *testing.B) (place string, size func(*Store) int64) {
	b.Helper()
	switch *recordOn {
	case "sqlite":
		dir := *recordIn
		if dir == "" {
			dir = b.TempDir()
		}
		place = filepath.Join(dir, "db")
		return place, func(*Store) int64 {
			info, err := os.Stat(place)
			if err != nil {
				b.Fatal(err)
			}
			return info.Size()
		}
	case "postgresql":
		own, err := postgres.Start(b.Context(), "fsync=on")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = own.Stop() })
		name, err := own.Database(b.Context(), "")
		if err != nil {
			b.Fatal(err)
		}
		return own.URL(name), func(s *Store) (n int64) {
			if err := s.read.QueryRowContext(b.Context(), `SELECT pg_database_size(current_database())`).Scan(&n); err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatalf("-record-on %s: sqlite or postgresql", *recordOn)
	return "", nil
}

// plan is how the database means to find what is searched for.
func plan(ctx context.Context, s *Store, q roster.Search) (string, error) {
	query, args := s.search(q)
	if s.read.dialect.goose == onPostgres.goose {
		lines, err := list(ctx, s.read, scanText, `EXPLAIN `+query, args...)
		return strings.Join(lines, "\n"), err
	}
	lines, err := list(ctx, s.read, func(r scanner) (line string, err error) {
		var a, b, c int
		err = r.Scan(&a, &b, &c, &line)
		return line, err
	}, `EXPLAIN QUERY PLAN `+query, args...)
	return strings.Join(lines, "\n"), err
}

// inBatch is how many entries a host of the benchmark sends at a time.
const inBatch = 500

// fill keeps entries until the record, which has some, has as many as it is to have.
func fill(ctx context.Context, b testing.TB, s *Store, has, wants int) {
	b.Helper()
	for i := range 100 {
		h := roster.Host{Name: fmt.Sprintf("host%d", i), Labels: map[string]string{}, ReceiptKey: make([]byte, 32), Identity: fmt.Sprint(i), EnrolledAt: noon}
		err := s.write(ctx, func(t *tx) error { return putHost(ctx, t, h, false) })
		if has == 0 && err != nil {
			b.Fatal(err)
		}
	}
	for n := has; n < wants; n += inBatch {
		host, batch := fmt.Sprintf("host%d", n/inBatch%100), make([]roster.Record, inBatch)
		before := n / inBatch / 100 * inBatch // that the host sent
		for i := range batch {
			e := filling(n + i)
			e.Host = host
			batch[i] = roster.Record{Seq: uint64(before + i + 1), Entry: e.Bytes()}
		}
		if _, err := s.KeepRecords(ctx, host, "o", batch); err != nil {
			b.Fatal(err)
		}
	}
}

func searches(ctx context.Context, b *testing.B, s *Store, q roster.Search) {
	b.Helper()
	q.Limit = 100
	how, err := plan(ctx, s, q)
	if err != nil || strings.Contains(how, "Seq Scan on entries ") {
		b.Fatalf("it reads the whole record: %v %s", err, how)
	}
	b.Log(how)
	var all []time.Duration
	found := 0
	for range 20 {
		began := time.Now()
		got, err := s.Events(ctx, q)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(began))
		found = len(got)
	}
	slices.Sort(all)
	fmt.Printf("%-40s %4d found  median %8.2fms  most %8.2fms\n", b.Name()[len("BenchmarkRecord/"):], found, float64(all[10])/1e6, float64(all[19])/1e6)
}
