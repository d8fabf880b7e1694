package store

import (
	"errors"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

func TestDelegationsEndWith(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(s *Store, a roster.Act) error
		left int
	}{
		{"the account of who is away", func(s *Store, a roster.Act) error {
			_, err := s.DisablePerson(t.Context(), "cy", a)
			return err
		}, 0},
		{"the account of who stands in", func(s *Store, a roster.Act) error {
			_, err := s.DisablePerson(t.Context(), "eve", a)
			return err
		}, 0},
		{"no other account", func(s *Store, a roster.Act) error {
			_, err := s.DisablePerson(t.Context(), "ana", a)
			return err
		}, 1},
		{"a database that is set back", func(s *Store, a roster.Act) error { return s.Restored(t.Context(), a, "restored") }, 0},
		{"the word of one of them", func(s *Store, a roster.Act) error { return s.EndDelegation(t.Context(), "d-1", a) }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fresh(t)
			for _, name := range []string{"ana", "cy", "eve"} {
				addPerson(t, s, name)
			}
			d := roster.Delegation{ID: "d-1", Away: "cy", StandIn: "eve", From: noon, Until: noon.Add(time.Hour), Factor: "totp", MadeAt: noon}
			must(t, s.AddDelegation(t.Context(), d, noon))
			a := roster.Act{By: "root", At: noon.Add(time.Minute)}
			must(t, c.end(s, a))
			all, err := s.Delegations(t.Context(), a.At)
			must(t, err)
			if len(all) != c.left {
				t.Errorf("%d are left", len(all))
			}
			ended, err := s.EndedDelegations(t.Context(), "eve", a.At)
			must(t, err)
			said := entriesOf(t, s, roster.TakenStep)
			if len(ended)+c.left != 1 || len(said)+c.left != 1 || len(said) == 1 && (!said[0].At.Equal(a.At) || said[0].Object != "eve" || !ended[0].IsTaken(said[0].Text)) {
				t.Errorf("ended are %v, and the record says %v", ended, said)
			}
			if err := s.EndDelegation(t.Context(), "d-1", a); errors.Is(err, roster.ErrUnknown) != (c.left == 0) {
				t.Errorf("ended again: %v", err)
			}
			if again := s.AddDelegation(t.Context(), roster.Delegation{ID: "d-2", Away: "cy", StandIn: "eve", From: noon, Until: noon.Add(time.Hour)}, noon); c.name[:11] == "the account" && !errors.Is(again, roster.ErrDisabled) {
				t.Errorf("one of a disabled person: %v", again)
			}
		})
	}
}

// entriesOf is what the record says of a step.
func entriesOf(t *testing.T, s *Store, step string) []ledger.Entry {
	t.Helper()
	all, err := s.Events(t.Context(), roster.Search{Limit: 100})
	must(t, err)
	var said []ledger.Entry
	for _, v := range all {
		if v.Entry.Step == step {
			said = append(said, v.Entry)
		}
	}
	return said
}
