package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"curfew.internal/test/postgres"
)

// server is the PostgreSQL that the suite runs on at present; nil while it
// runs on SQLite.
var server *postgres.Server

// template is a database of the present form, which others are copied from.
var template string

// The whole suite runs twice: on SQLite, then on PostgreSQL.
func TestMain(m *testing.M) {
	if place := os.Getenv(crashPlace); place != "" {
		decideUntilKilled(place)
		os.Exit(1)
	}
	code := m.Run()
	if err := onServer(func() { code = max(code, m.Run()) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func onServer(run func()) error {
	ctx := context.Background()
	var err error
	if server, err = postgres.Start(ctx); err != nil {
		return err
	}
	defer func() { _ = server.Stop() }()
	if template, err = server.Database(ctx, ""); err != nil {
		return err
	}
	s, err := Open(ctx, server.URL(template), "lab")
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	fmt.Println("--- the same on PostgreSQL")
	run()
	return nil
}

// newPlace is where a database of the present form is, or will be when it is
// opened.
func newPlace(t *testing.T) string {
	t.Helper()
	if server == nil {
		return filepath.Join(t.TempDir(), "a b?#.db")
	}
	return database(t, template)
}

func database(t *testing.T, from string) string {
	t.Helper()
	name, err := server.Database(t.Context(), from)
	must(t, err)
	t.Cleanup(func() { must(t, server.Drop(context.WithoutCancel(t.Context()), name)) })
	return server.URL(name)
}

// emptyPlace is where a database with nothing in it is.
func emptyPlace(t *testing.T) string {
	t.Helper()
	if server == nil {
		return newPlace(t)
	}
	return database(t, "")
}
