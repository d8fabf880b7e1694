package agent

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"curfew.internal/grant"
	"curfew.internal/ledger"
)

func TestNobodyLeavesASessionByCallingForAnother(t *testing.T) {
	login := Knock{Open: true, Service: "sshd", User: "ana", PID: 50, FD: -1}
	sudo := Knock{Open: true, Service: "sudo", User: "root", RUser: "ana", PID: 50, FD: -1}
	for _, c := range []struct {
		name        string
		first, then Knock
		allow, same bool
		says        string
	}{
		{"su into somebody else's account", sudo, Knock{Open: true, Service: "su", User: "ben", RUser: "root", PID: 50, FD: -1}, false, true, "opens none of ben's"},
		{"sudo as somebody else", sudo, Knock{Open: true, Service: "sudo", User: "root", RUser: "ben", PID: 50, FD: -1}, false, true, "opens none of ben's"},
		{"a login of somebody else's, out of a login", login, Knock{Open: true, Service: "su", User: "ben", RUser: "root", PID: 50, FD: -1}, false, true, "opens none of ben's"},
		{"a question to the door that says to be sshd", sudo, login, true, true, ""},
		{"sudo within sudo", sudo, sudo, true, true, ""},
		{"su to herself in her login", login, Knock{Open: true, Service: "su", User: "ana", RUser: "ana", PID: 50, FD: -1}, true, true, ""},
		{"sudo in a login is a session of its own", login, sudo, true, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			short, long := held("g-short", "ana", 0, 10*time.Minute), held("g-long", "ana", 0, 8*time.Hour)
			long.Role.RunAs, long.Role.AnyCommand, long.Role.Unguarded = nil, false, true
			bens := held("g-ben", "ben", 0, 8*time.Hour)
			bens.Person.UID++
			w.offered.Grants = []grant.Grant{short, long, bens}
			a := w.agent(t)
			pass(t, a)
			if got := a.Knock(t.Context(), c.first); !got.Allow {
				t.Fatal(got)
			}
			was := w.tasks[50]
			got := a.Knock(t.Context(), c.then)
			if got.Allow != c.allow || !strings.Contains(got.Message, c.says) || (w.tasks[50] == was) != c.same {
				t.Errorf("%+v; the label was %x and is %x", got, was, w.tasks[50])
			}
			told := slices.ContainsFunc(w.told(ledger.Refused), func(e ledger.Entry) bool { return e.Session == was && e.Person == "ana" })
			if told == c.allow {
				t.Errorf("refused in the record: %v", told)
			}
			if w.freed[was] != (c.first.Service == "sshd") {
				t.Errorf("the guard of the first session: %v", w.freed)
			}
		})
	}
}

func TestALabelThatNobodyKnowsOpensNothing(t *testing.T) {
	w := newWorld()
	w.offered.Grants = []grant.Grant{held("g-a", "ana", 0, time.Hour)}
	a := w.agent(t)
	pass(t, a)
	w.tasks[50] = 77
	if got := a.Knock(t.Context(), Knock{Open: true, Service: "sudo", User: "root", RUser: "ana", PID: 50}); got.Allow || w.tasks[50] != 77 {
		t.Errorf("%+v, label %x", got, w.tasks[50])
	}
}

// A revocation comes while the host is looked at before the first session.
func TestWhatIsRevokedInTheDoorIsNotOpened(t *testing.T) {
	w := newWorld()
	w.offered.Grants = []grant.Grant{held("g-a", "ana", 0, time.Hour)}
	a := w.agent(t)
	pass(t, a)
	a.Host = slowly{fakeHost{w}, func() {
		w.offered.Grants = nil
		if _, err := a.Accept(t.Context(), nil, []byte("new")); err != nil {
			t.Fatal(err)
		}
		<-a.wake // as the loop does
		pass(t, a)
	}}
	got := a.Knock(t.Context(), Knock{Open: true, Service: "sudo", User: "root", RUser: "ana", PID: 50})
	if got.Allow || len(a.wake) != 1 {
		t.Errorf("%+v, woken %v", got, len(a.wake))
	}
	pass(t, a)
	if w.tasks[50] != 0 || len(w.sessions) > 0 {
		t.Errorf("left: %v %v", w.tasks, w.sessions)
	}
}

// slowly is a host on which something happens while it is looked at.
type slowly struct {
	fakeHost
	during func()
}

func (h slowly) Snapshot(context.Context) ([]byte, error) {
	h.during()
	return nil, nil
}
