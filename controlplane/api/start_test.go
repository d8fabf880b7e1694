package api_test

import (
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/wire/api"
)

// A grant that is to begin later does so, or with its approval if that is later
// still; its length counts from there.
func TestAGrantBeginsWhenItIsTo(t *testing.T) {
	for _, c := range []struct {
		name        string
		start, says time.Duration // from when it is asked for: it is to begin, and is approved
		begins      time.Duration
	}{
		{"approved before it begins", 6 * time.Hour, 30 * time.Minute, 6 * time.Hour},
		{"approved after it was to begin", 10 * time.Minute, 30 * time.Minute, 30 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, ctx := newWorld(t), t.Context()
			var asked time.Time
			r, err := w.ana.CreateRequest(ctx, question(t, w.ana, func(m *api.CreateRequestRequest) {
				asked = w.clock.Now().Wall
				m.Start = timestamppb.New(asked.Add(c.start))
			}))
			must(t, err)
			if !r.Start.AsTime().Equal(asked.Add(c.start)) {
				t.Errorf("approvers are shown %v", r.Start)
			}
			w.clock.pass(c.says - 30*time.Second) // the code takes the rest
			code := w.ben.fresh(t)
			got, err := w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: code})
			must(t, err)
			from := asked.Add(c.begins).Truncate(time.Second)
			if !got.NotBefore.AsTime().Equal(from) || !got.NotAfter.AsTime().Equal(from.Add(time.Hour)) {
				t.Errorf("it stands from %v to %v", got.NotBefore.AsTime(), got.NotAfter.AsTime())
			}
			// What goes on from it does not begin before it.
			longer, err := w.ana.Extend(ctx, &api.ExtendRequest{Grant: got.Grant, Duration: durationpb.New(time.Hour), Code: w.ana.fresh(t)})
			must(t, err)
			longer, err = w.ben.Approve(ctx, &api.ApproveRequest{Id: longer.Id, Digest: longer.Digest, Code: w.ben.fresh(t)})
			must(t, err)
			if longer.NotBefore.AsTime().Before(from) || !longer.NotAfter.AsTime().Equal(from.Add(2*time.Hour)) {
				t.Errorf("it goes on from %v to %v", longer.NotBefore.AsTime(), longer.NotAfter.AsTime())
			}
		})
	}
}

// A grant that is to begin is looked at as of its beginning: a policy that makes
// its person eligible from then on gave it, and one that ends before takes it.
func TestAGrantThatIsToBeginIsJudgedAsOfItsBeginning(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r, err := w.ana.CreateRequest(ctx, question(t, w.ana, func(m *api.CreateRequestRequest) {
		m.Start = timestamppb.New(w.clock.Now().Wall.Add(6 * time.Hour))
		w.rules.change(func() { w.rules.since = m.Start.AsTime() })
		if roles, err := w.ana.ListRoles(ctx, &api.ListRolesRequest{}); err != nil || len(roles.Roles) != 1 || !roles.Roles[0].EligibleFrom.AsTime().Equal(m.Start.AsTime()) {
			t.Errorf("she is told of %v, %v", roles, err)
		}
		m.Hosts, m.Labels = nil, map[string]string{"tier": "db"}
	}))
	must(t, err)
	r, err = w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	must(t, err)
	for _, c := range []struct {
		name         string
		since, until time.Duration // from its beginning on
		want         string
	}{
		{"eligible from then on", 0, time.Minute, "issued"},
		{"not eligible then any more", -10 * time.Hour, -time.Minute, "revoked"},
	} {
		w.rules.change(func() {
			w.rules.since, w.rules.until = r.NotBefore.AsTime().Add(c.since), r.NotBefore.AsTime().Add(c.until)
		})
		must(t, w.server.Recheck(ctx))
		if got, err := w.ana.GetRequest(ctx, &api.GetRequestRequest{Id: r.Id}); err != nil || got.State != c.want {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

// When it begins is part of what is asked for.
func TestAnotherStartIsAnotherRequest(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	var last []byte
	for _, in := range []time.Duration{time.Hour, 2 * time.Hour} {
		m := question(t, w.ana, func(m *api.CreateRequestRequest) { m.Start = timestamppb.New(noon.Add(10 * time.Hour).Add(in)) })
		m.Key = "the same"
		r, err := w.ana.CreateRequest(ctx, m)
		if last == nil {
			must(t, err)
			last = r.Digest
			continue
		}
		refused(t, err, connect.CodeAlreadyExists, "this key was used for another request")
	}
}

func TestWhatCannotBeginIsRefused(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	for name, c := range map[string]struct {
		in   time.Duration
		text string
	}{
		"in the past":        {-time.Minute, "which is past"},
		"in more than month": {31 * 24 * time.Hour, "more than 30 days"},
	} {
		_, err := w.ana.CreateRequest(ctx, question(t, w.ana, func(m *api.CreateRequestRequest) {
			m.Start = timestamppb.New(w.clock.Now().Wall.Add(c.in))
		}))
		if err == nil {
			t.Error(name)
			continue
		}
		refused(t, err, connect.CodeInvalidArgument, c.text)
	}
}

// Labels name the hosts of the role that have them, and no others.
func TestHostsAreNamedByLabels(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	ask := func(labels map[string]string, hosts ...string) (*api.Request, error) {
		return w.ana.CreateRequest(ctx, question(t, w.ana, func(m *api.CreateRequestRequest) { m.Hosts, m.Labels = hosts, labels }))
	}
	r, err := ask(map[string]string{"tier": "db"})
	must(t, err)
	if !slices.Equal(r.Hosts, []string{"db1", "db2"}) {
		t.Errorf("%v", r.Hosts)
	}
	for name, c := range map[string]struct {
		labels map[string]string
		hosts  []string
		text   string
	}{
		"of hosts that are not the role's": {map[string]string{"tier": "web"}, nil, "has these labels"},
		"of no host":                       {map[string]string{"tier": "db", "zone": "a"}, nil, "has these labels"},
		"beside hosts":                     {map[string]string{"tier": "db"}, []string{"db1"}, "not both"},
		"that are none":                    {map[string]string{"a b": "c"}, nil, "label"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ask(c.labels, c.hosts...)
			refused(t, err, connect.CodeInvalidArgument, c.text)
		})
	}
}
