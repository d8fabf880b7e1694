package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"curfew.internal/grant"
)

func TestPeopleAreWarnedBeforeTheEnd(t *testing.T) {
	const minute = time.Minute
	lasting := func(id string, length time.Duration) grant.Grant {
		return grant.Grant{
			ID: id, Person: grant.Person{Name: "ana"}, Role: grant.Role{Name: "ops"},
			NotBefore: noon, NotAfter: noon.Add(length),
		}
	}
	ana := []Session{{ID: 1, Person: "ana"}, {ID: 2, Person: "ana"}, {ID: 3, Person: "ben"}}
	for _, c := range []struct {
		name   string
		grants []grant.Grant
		at     time.Duration // since noon
		told   map[string]time.Duration
		want   string
	}{
		{"an hour before: not yet", []grant.Grant{lasting("g-1", 2*time.Hour)}, time.Hour, nil, ""},
		{"fifteen minutes before", []grant.Grant{lasting("g-1", time.Hour)}, 45 * minute, nil, "g-1 ends in 15 minutes"},
		{"told is told", []grant.Grant{lasting("g-1", time.Hour)}, 46 * minute, map[string]time.Duration{"g-1": 15 * minute}, ""},
		{"five minutes before, again", []grant.Grant{lasting("g-1", time.Hour)}, 55 * minute, map[string]time.Duration{"g-1": 15 * minute}, "g-1 ends in 5 minutes"},
		{"once at five", []grant.Grant{lasting("g-1", time.Hour)}, 58 * minute, map[string]time.Duration{"g-1": 5 * minute}, ""},
		{"an agent that starts late tells what is left", []grant.Grant{lasting("g-1", time.Hour)}, 59 * minute, nil, "g-1 ends in a minute"},
		{"ten minutes in all: at five only", []grant.Grant{lasting("g-1", 10*minute)}, minute, nil, ""},
		{"ten minutes in all: at five", []grant.Grant{lasting("g-1", 10*minute)}, 5 * minute, nil, "g-1 ends in 5 minutes"},
		{"three minutes in all: never", []grant.Grant{lasting("g-1", 3*minute)}, minute, nil, ""},
		{"another grant goes on", []grant.Grant{lasting("g-1", time.Hour), lasting("g-2", 2*time.Hour)}, 55 * minute, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := due(c.grants, ana, c.told, noon.Add(c.at))
			if c.want == "" {
				if len(got) > 0 {
					t.Errorf("warned: %+v", got)
				}
				return
			}
			id, words, _ := strings.Cut(c.want, " ")
			if len(got) != 1 || got[0].grant.ID != id || !strings.Contains(got[0].text, words) || !strings.Contains(got[0].text, "curfew extend "+id) ||
				!slices.Equal(got[0].sessions, []uint64{1, 2}) {
				t.Errorf("%+v, not %q for sessions 1 and 2", got, c.want)
			}
		})
	}
}

// A terminal that is stopped (Ctrl-S) is tried again: nobody is ended unwarned for that.
func TestWhoseTerminalIsStoppedIsToldLater(t *testing.T) {
	a := newWorld().agent(t)
	ends := warning{grant: grant.Grant{ID: "g-1", NotAfter: noon}, sessions: []uint64{1}, text: "x"}
	a.Host = stopped{a.Host}
	if a.tell(t.Context(), ends) {
		t.Error("that was all")
	}
	a.Host = a.Host.(stopped).Host
	if !a.tell(t.Context(), ends) {
		t.Error("it goes on")
	}
}

// stopped is a host on which no terminal takes anything.
type stopped struct{ Host }

func (stopped) Tell([]int, string) (n int, later bool) { return 0, true }
