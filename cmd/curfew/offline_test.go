package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"curfew.internal/ledger"
)

func TestWhichRecordingsOfABundleArePlayed(t *testing.T) {
	begun := time.Date(2027, 1, 31, 14, 0, 0, 0, time.UTC)
	take := func(terminal, grant string, session uint64, after time.Duration, number uint64) ledger.Take {
		return ledger.Take{Segment: ledger.Segment{Host: "db1", Terminal: terminal, Grant: grant, Session: session, From: begun.Add(after), Number: number}}
	}
	all := []ledger.Take{
		take("00000000000000ab-02", "g-a", 0xab, time.Minute, 1), take("00000000000000ab-01", "g-a", 0xab, 0, 2),
		take("00000000000000ab-01", "g-a", 0xab, 0, 1), take("00000000000000cd-01", "g-b", 0xcd, time.Hour, 4),
	}
	for _, c := range []struct {
		name, id string
		want     []string
	}{
		{"a grant's, the oldest first and each in its order", "g-a", []string{"00000000000000ab-01 1", "00000000000000ab-01 2", "|", "00000000000000ab-02 1", "|"}},
		{"a session's, by its number as people see it", "cd", []string{"00000000000000cd-01 4", "|"}},
		{"one by its name", "00000000000000ab-02", []string{"00000000000000ab-02 1", "|"}},
		{"of what is not there, none", "g-c", nil},
	} {
		var got []string
		for _, one := range reels(all, c.id) {
			for _, t := range one {
				got = append(got, fmt.Sprint(t.Terminal, " ", t.Number))
			}
			got = append(got, "|")
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
