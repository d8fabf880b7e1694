package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/controlplane/roster"
)

// A grant may be for fewer hosts than were asked for: the others never hear of
// it.
func TestAGrantForFewerHosts(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, rid)
	got, err := s.Change(ctx, rid, noon, func(r roster.Request) (roster.Change, error) {
		c, err := approve(r)
		c.Approval.Duration, c.Approval.Hosts = 20*time.Minute, []string{"db2"}
		c.Grant.Hosts = []string{"db2"}
		return c, err
	})
	must(t, err)
	if a := got.Approvals[0]; a.Duration != 20*time.Minute || !cmp.Equal(a.Hosts, []string{"db2"}) || !cmp.Equal(got.Hosts, []string{"db1", "db2"}) {
		t.Errorf("%+v", got)
	}
	for host, n := range map[string]int{"db1": 0, "db2": 1} {
		live, err := s.LiveOn(ctx, "ana", host, noon)
		if o := opened(t, s, host); err != nil || len(o.Grants) != n || len(live) != n {
			t.Errorf("%s: %+v, %v, %v", host, o, live, err)
		}
	}
}
