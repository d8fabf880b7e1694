package controlplane

import (
	"testing"
	"time"

	"curfew.internal/clock"
	"curfew.internal/controlplane/policy"
)

// handClock shows what it is set to.
type handClock struct{ now time.Time }

func (c *handClock) Now() clock.Reading { return clock.Reading{Wall: c.now} }

func (*handClock) After(time.Duration) <-chan time.Time { return nil }

// Who is on call changes with the time alone, forth and back, and with the
// policy, though the hour is the same.
func TestThePolicyInForceKnowsWhoIsOnCall(t *testing.T) {
	read := func(people string) policy.Policy {
		p, problems := policy.Parse(map[string][]byte{"p.yaml": []byte(`groups:
  oncall: {rotation: ` + people + `, from: 2027-01-04, at: '09:00', zone: Europe/Berlin}
roles:
  ops: {all_hosts: true, max_duration: 1h, approval: {by: [group:oncall]}}
eligible:
  - {role: ops, people: [ana]}
`)})
		if !policy.Holds(problems) {
			t.Fatal(problems)
		}
		return p
	}
	monday := time.Date(2027, 1, 11, 8, 0, 0, 0, time.UTC)
	c := &handClock{now: monday.Add(-time.Second)}
	r := &rules{clock: c, now: read("[ben, cleo]"), turn: 1}
	is := func(who string) {
		t.Helper()
		for _, name := range []string{"ben", "cleo", "dan"} {
			if r.MayApprove(name, "ana", "ops") != (name == who) {
				t.Errorf("%v: %s may approve: %v", c.now, name, name != who)
			}
		}
	}
	is("ben")
	c.now = monday
	is("cleo")
	c.now = monday.Add(-time.Hour)
	is("ben")
	c.now = monday.AddDate(0, 0, -14)
	is("")
	c.now = monday
	is("cleo")
	r.now, r.turn = read("[ben, dan]"), 2
	is("dan")
}
