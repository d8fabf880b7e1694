package store

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/controlplane/roster"
)

func TestManagers(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addPerson(t, s, "ana")
	addPerson(t, s, "ben")
	for n, c := range []struct {
		name, manager string
		want          map[string]string
	}{
		{"somebody of the fleet", "ben", map[string]string{"ana": "ben"}},
		{"nobody of the fleet", "eve", map[string]string{}},
		{"somebody again", "ben", map[string]string{"ana": "ben"}},
		{"nobody", "", map[string]string{}},
		{"who is disabled later", "ben", map[string]string{"ana": "ben"}},
	} {
		v := arrival("sub-ana", "ana", browser("w-"+c.name))
		v.Bind, v.Manager = n == 0, c.manager
		must(t, s.Arrive(ctx, v, noon))
		if got, err := s.Claimed(ctx, noon); err != nil || !maps.Equal(got.Managers, c.want) {
			t.Errorf("%s: %v, %v", c.name, got.Managers, err)
		}
	}
	if got, err := s.Claimed(ctx, noon.Add(toldFor)); err != nil || len(got.Managers) != 0 {
		t.Errorf("what was said long ago counts: %v, %v", got.Managers, err)
	}
	_, err := s.DisablePerson(ctx, "ben", roster.Act{By: "root", At: noon})
	must(t, err)
	if got, err := s.Claimed(ctx, noon); err != nil || len(got.Managers) != 0 {
		t.Errorf("who is disabled manages: %v, %v", got.Managers, err)
	}
}

func TestMembers(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addPerson(t, s, "ana")
	addPerson(t, s, "ben")
	arrive := func(person string, at time.Time, groups []string) {
		t.Helper()
		v := arrival("sub-"+person, person, browser("w-"+person+at.String()))
		_, err := s.Account(ctx, issuer, v.Subject)
		v.Bind, v.Groups = err != nil, groups
		must(t, s.Arrive(ctx, v, at))
	}
	in := func(at time.Time, want map[string][]string) {
		t.Helper()
		got, err := s.Claimed(ctx, at)
		if diff := cmp.Diff(want, got.Members); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
	}
	in(noon, map[string][]string{})
	arrive("ben", noon, []string{"SRE team"})
	arrive("ana", noon, []string{"SRE team", "DBA", "DBA"})
	in(noon, map[string][]string{"SRE team": {"ana", "ben"}, "DBA": {"ana"}})
	arrive("ana", noon.Add(time.Hour), nil) // it was not asked
	arrive("ana", noon.Add(2*time.Hour), []string{"DBA"})
	in(noon, map[string][]string{"SRE team": {"ben"}, "DBA": {"ana"}})
	arrive("ana", noon.Add(3*time.Hour), []string{"DBA"})
	arrive("ana", noon.Add(4*time.Hour), []string{})
	in(noon, map[string][]string{"SRE team": {"ben"}})
	if said := told(t, s); strings.Count(said, "is in groups of") != 4 || !strings.Contains(said, "is in groups of "+issuer+": DBA, SRE team\n") ||
		!strings.Contains(said, "is in groups of "+issuer+": none\n") {
		t.Error(said)
	}

	// What the provider said long ago counts no more, nor what it says of who is disabled.
	in(noon.Add(toldFor), map[string][]string{})
	_, err := s.DisablePerson(ctx, "ben", roster.Act{By: "root", At: noon})
	must(t, err)
	in(noon, map[string][]string{})
}
