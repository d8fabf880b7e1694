package store

import (
	"fmt"
	"slices"
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

// A grant on more hosts than are read at once is on each of them, names that
// one alone there, and stands whole in the database.
func TestAGrantOnManyHosts(t *testing.T) {
	s, ctx := scene(t), t.Context()
	r := asked(rid)
	r.Hosts = nil
	var rows []any
	for i := range setsAtOnce + 1 {
		name := fmt.Sprintf("many%04d", i)
		r.Hosts = append(r.Hosts, name)
		rows = append(rows, name, "{}", "[]", "[]", []byte(public(hostKey)), "id-"+name, 1, 1)
	}
	must(t, s.write(ctx, func(t *tx) error {
		return t.insert(ctx, "hosts (name, labels, addresses, ssh_host_keys, receipt_key, identity, enrolled_at, fresh_at)", 8, rows)
	}))
	_, err := s.Ask(ctx, r, noon, roster.Change{})
	must(t, err)
	got, err := s.Change(ctx, rid, noon, approve)
	must(t, err)
	if !slices.Equal(got.Grant.Hosts, r.Hosts) {
		t.Errorf("the grant as it is kept is for %d hosts of %d", len(got.Grant.Hosts), len(r.Hosts))
	}
	each := func(revision uint64, grants int) {
		t.Helper()
		for _, name := range r.Hosts {
			o := opened(t, s, name)
			if o.Revision != revision || len(o.Grants) != grants {
				t.Fatalf("%s: %+v", name, o)
			}
			for _, g := range o.Grants {
				if diff := cmp.Diff(got.Grant.For(name), g); diff != "" || !slices.Equal(g.Hosts, []string{name}) {
					t.Fatalf("%s: %s", name, diff)
				}
			}
		}
	}
	each(1, 1)
	_, err = s.Change(ctx, gid, noon.Add(time.Minute), to("revoked"))
	must(t, err)
	each(2, 0)
}
