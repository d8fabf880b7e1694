package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// hears makes two servers of a new database, and returns the one that acts and
// what the other hears of its hosts' sets.
func hears(t *testing.T) (acts, other *Store, sets <-chan []string) {
	t.Helper()
	place := newPlace(t)
	acts, other = openAt(t, place), openAt(t, place)
	heard := make(chan []string, 100)
	other.OnSets(func(hosts []string) { heard <- hosts })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	first := other.Changed()
	go func() { done <- other.Follow(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	if server != nil {
		woken(t, first) // by the beginning: it hears from now on
	}
	return acts, other, heard
}

func woken(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(2 * time.Minute):
		t.Fatal("nobody was woken in 2 min")
	}
}

// With SQLite there is no other server to hear; with PostgreSQL there is.
func TestOtherServerIsToldAtOnce(t *testing.T) {
	acts, other, sets := hears(t)
	changed := other.Changed()
	addHost(t, acts, "db1")
	if server == nil {
		select {
		case <-changed:
			t.Error("SQLite told of a change")
		default:
		}
		return
	}
	woken(t, changed)
	// The code for the host comes first, and is about no set.
	if got := <-sets; !slices.Equal(got, []string{"db1"}) {
		t.Errorf("heard of %v", got)
	}
	// What concerns nobody, and what the server did itself, is not told.
	changed = other.Changed()
	must(t, acts.UseNonce(t.Context(), "s", "n", noon, noon))
	select {
	case <-changed:
		t.Error("a nonce woke everybody")
	default:
	}
	addHost(t, other, "db2")
	addHost(t, acts, "db3")
	if got := [][]string{<-sets, <-sets}; !slices.EqualFunc(got, [][]string{{"db2"}, {"db3"}}, slices.Equal[[]string]) {
		t.Errorf("heard of %v, and once each", got)
	}
}

// A change of more sets than one notification can name wakes every host.
func TestOtherServerIsToldOfMany(t *testing.T) {
	acts, _, sets := hears(t)
	if server == nil {
		return
	}
	for i := range 3 {
		addHost(t, acts, fmt.Sprint("db", i))
		<-sets
	}
	many := make([]string, 2000)
	for i := range many {
		many[i] = fmt.Sprint("web", i)
	}
	must(t, acts.write(t.Context(), func(tx *tx) error {
		tx.hosts = many
		return nil
	}))
	if got := <-sets; len(got) != 3 {
		t.Errorf("heard of %v", got)
	}
}

// A server that loses the database says so, and hears again once it is back.
func TestServerThatLosesTheDatabase(t *testing.T) {
	place := newPlace(t)
	acts, other := openAt(t, place), openAt(t, place)
	if server == nil {
		return
	}
	done := make(chan error, 1)
	first := other.Changed()
	go func() { done <- other.Follow(t.Context()) }()
	woken(t, first)
	_, err := acts.one.ExecContext(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()`)
	must(t, err)
	if err := <-done; err == nil {
		t.Fatal("it did not notice")
	}
	// Every other connection of it was cut as well.
	addPerson(t, other, "ana")
	if _, err := other.Person(t.Context(), "ana"); err != nil {
		t.Error(err)
	}
}
