package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/wire/api"
)

func someEvents() []*api.Event {
	at := timestamppb.New(time.Date(2027, 1, 31, 12, 0, 0, 5, time.UTC))
	return []*api.Event{
		{Id: 1, At: at, Host: "db1", Kind: "exec", Person: "ana", Approvers: []string{"ben", "dan"}, Session: 255, SessionSeq: 1, Process: &api.Process{
			Pid: 7, Ids: &api.IDs{Euid: 0}, Path: "/usr/bin/sh", Argv: []string{"sh", "-c", "two\nlines, \"quoted\""}, Cwd: "/",
		}},
		{Id: 2, At: at, Host: "db1", Kind: "refused", Outcome: "refused", Text: "=cmd|' /C calc'!A0"},
	}
}

func printed(t *testing.T, form string, endless bool, events []*api.Event) string {
	t.Helper()
	var out bytes.Buffer
	p := &program{globals: globals{Output: form}, out: &out}
	to := p.events(endless)
	for _, e := range events {
		if err := to.print(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := to.end(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestEventsAreOneListInJSON(t *testing.T) {
	for n := range 3 {
		var all []map[string]any
		if err := json.Unmarshal([]byte(printed(t, "json", false, someEvents()[:n])), &all); err != nil || len(all) != n {
			t.Errorf("%d events: %v, %v", n, all, err)
		}
	}
}

func TestEventsAreALineEachInNDJSON(t *testing.T) {
	for _, out := range []string{printed(t, "ndjson", false, someEvents()), printed(t, "json", true, someEvents())} {
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		for _, l := range lines {
			if !json.Valid([]byte(l)) {
				t.Errorf("%q", l)
			}
		}
		if len(lines) != 2 {
			t.Errorf("%d lines", len(lines))
		}
	}
}

func TestEventsInCSV(t *testing.T) {
	rows, err := csv.NewReader(strings.NewReader(printed(t, "csv", false, someEvents()))).ReadAll()
	if err != nil || len(rows) != 3 {
		t.Fatalf("%q, %v", rows, err)
	}
	get := func(row int, column string) string { return rows[row][slices.Index(columns, column)] }
	for column, want := range map[string]string{
		"id": "1", "at": "2027-01-31T12:00:00.000000005Z", "command": `sh -c two\nlines, "quoted"`, "uid": "0", "session": "ff", "approvers": "ben,dan", "exit_code": "", "lost": "",
	} {
		if got := get(1, column); got != want {
			t.Errorf("%s: %q, want %q", column, got, want)
		}
	}
	if got := get(2, "text"); !strings.HasPrefix(got, "'=cmd") {
		t.Errorf("a formula: %q", got)
	}
	if got := printed(t, "csv", false, nil); got != strings.Join(columns, ",")+"\n" {
		t.Errorf("nothing found: %q", got)
	}
}

func TestNoCellIsAFormula(t *testing.T) {
	for s, want := range map[string]string{
		"=1+1": "'=1+1", " =1+1": "' =1+1", `"=1+1"`: `'"=1+1"`, "＝1+1": "'＝1+1", "-c": "'-c",
		"x;=HYPERLINK(1)": "x;'=HYPERLINK(1)", `x; "@SUM(1)"`: `x;' "@SUM(1)"`, "a;b;+1": "a;b;'+1",
		"sh -c a; b -x": "sh -c a; b -x", "a=b": "a=b", "": "",
	} {
		if got := cell(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

func TestOnlyTheRecordHasMoreForms(t *testing.T) {
	for _, c := range []struct {
		form, command string
		want          bool
	}{
		{"csv", "audit search", true},
		{"csv", "audit search <words>", true},
		{"ndjson", "audit tail", true},
		{"csv", "hosts list", false},
		{"json", "hosts list", true},
	} {
		if got := (globals{Output: c.form}).prints(c.command); got != c.want {
			t.Errorf("%s of %s: %v", c.form, c.command, got)
		}
	}
}
