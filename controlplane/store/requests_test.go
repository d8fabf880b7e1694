package store

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/controlplane/request"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

const rid, gid = "r-aaaaaaaaaaaaaaaa", "g-aaaaaaaaaaaaaaaa"

func asked(id string) roster.Request {
	return roster.Request{
		Asked: roster.Asked{
			Role: "db-admin", Hosts: []string{"db1", "db2"}, Duration: time.Hour, Reason: "disk full", Factor: "totp",
			Resolved: grant.Role{Name: "db-admin", RunAs: []string{"root"}, Commands: []grant.Command{{Path: "/bin/true"}}}, Needed: 1, Policy: "v1",
		},
		ID: id, Person: "ana", Key: "k-" + id, Digest: make([]byte, 32), AskedAt: noon, LapsesAt: noon.Add(time.Hour), State: "asked",
	}
}

func grantFor(r roster.Request, id string) *grant.Grant {
	return &grant.Grant{
		ID: id, Fleet: "lab", Person: grant.Person{Name: "ana", UID: grant.UIDMin, FullName: "Dr. ana"}, Role: r.Resolved,
		Hosts: r.Hosts, NotBefore: noon, NotAfter: noon.Add(r.Duration), Request: r.ID, Digest: r.Digest, Reason: r.Reason,
		Asked: grant.Evidence{Person: "ana", Factor: "totp", At: r.AskedAt}, Approvals: []grant.Evidence{{Person: "ben", Factor: "totp", At: noon}},
	}
}

func approve(r roster.Request) (roster.Change, error) {
	if r.State != "asked" {
		return roster.Change{}, errors.New("decided: " + r.State)
	}
	return roster.Change{
		State: "issued", Approval: &roster.Approval{Person: "ben", Factor: "totp", At: noon, Note: "ok"}, Grant: grantFor(r, "g"+r.ID[1:]),
		Steps: []roster.Decision{{At: noon, What: "approved", Person: "ben"}},
	}, nil
}

func to(state string) func(roster.Request) (roster.Change, error) {
	return func(r roster.Request) (roster.Change, error) {
		return roster.Change{State: state, By: "ben", Note: "why", Steps: []roster.Decision{{At: noon, What: state}}}, nil
	}
}

// scene is a store with ana, ben, db1 and db2.
func scene(t *testing.T) *Store {
	t.Helper()
	s := fresh(t)
	addPerson(t, s, "ana")
	addPerson(t, s, "ben")
	addHost(t, s, "db1")
	addHost(t, s, "db2")
	return s
}

func ask(t *testing.T, s *Store, id string) {
	t.Helper()
	_, err := s.Ask(t.Context(), asked(id), noon, roster.Change{Steps: []roster.Decision{{At: noon, What: "asked", Person: "ana"}}})
	must(t, err)
}

func TestRequestLife(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, rid)
	got, err := s.Request(ctx, rid)
	must(t, err)
	full := asked(rid)
	full.FullName = "Dr. ana"
	if diff := cmp.Diff(full, got); diff != "" {
		t.Fatal(diff)
	}
	if o := opened(t, s, "db1"); len(o.Grants) != 0 {
		t.Error("a grant before its approval")
	}
	got, err = s.Change(ctx, rid, noon, approve)
	must(t, err)
	if got.State != "issued" || got.Grant == nil || got.Approvals[0].Note != "ok" {
		t.Errorf("%+v", got)
	}
	for _, h := range []string{"db1", "db2"} {
		if o := opened(t, s, h); o.Revision != 2 || len(o.Grants) != 1 || cmp.Diff(got.Grant.For(h), o.Grants[0]) != "" || !slices.Equal(o.Grants[0].Hosts, []string{h}) {
			t.Errorf("%s: %+v", h, o)
		}
	}
	if by, err := s.Request(ctx, gid); err != nil || by.ID != rid {
		t.Error("by the grant's id:", by.ID, err)
	}
	live, err := s.LiveOn(ctx, "ana", "db1", noon)
	if err != nil || len(live) != 1 {
		t.Error("live:", live, err)
	}
	if due, err := s.Due(ctx, noon.Add(time.Hour)); err != nil || len(due) != 1 {
		t.Error("due:", due, err)
	}
	must(t, s.Applied(ctx, "db1", roster.Report{Revision: 2}, noon.Add(time.Second)))
	sent, err := s.SentTo(ctx, rid)
	if err != nil || len(sent) != 1 || !sent[0].At.Equal(noon.Add(time.Second)) {
		t.Error("sent:", sent, err)
	}
	got, err = s.Change(ctx, gid, noon.Add(time.Minute), to("revoked"))
	must(t, err)
	if got.State != "revoked" || got.DecidedBy != "ben" || !got.EndedAt.Equal(noon.Add(time.Minute)) {
		t.Errorf("%+v", got)
	}
	if o := opened(t, s, "db1"); o.Revision != 3 || len(o.Grants) != 0 {
		t.Errorf("after the end: %+v", o)
	}
	if due, err := s.Due(ctx, noon.Add(time.Hour)); err != nil || len(due) != 0 {
		t.Error("due:", due, err)
	}
	steps, err := s.Decisions(ctx, rid)
	if err != nil || len(steps) != 3 {
		t.Error("steps:", steps, err)
	}
}

func TestTheDatabaseHasTheTableOfMoves(t *testing.T) {
	s := fresh(t)
	got, err := list(t.Context(), s.read, func(r scanner) ([2]request.State, error) {
		var m [2]request.State
		err := r.Scan(&m[0], &m[1])
		return m, err
	}, `SELECT was, now FROM request_moves ORDER BY was, now`)
	must(t, err)
	if diff := cmp.Diff(request.Moves(), got); diff != "" {
		t.Error(diff)
	}
}

func TestSameKeySameRequest(t *testing.T) {
	s := scene(t)
	ask(t, s, rid)
	again := asked("r-bbbbbbbbbbbbbbbb")
	again.Key = "k-" + rid
	got, err := s.Ask(t.Context(), again, noon, roster.Change{})
	if err != nil || got.ID != rid {
		t.Error(got.ID, err)
	}
	again.Reason = "something else"
	_, err = s.Ask(t.Context(), again, noon, roster.Change{})
	want(t, "same key for something else", err, roster.ErrExists)
}

func TestDatabaseRefuses(t *testing.T) {
	for _, c := range []struct {
		name, sql, why string
	}{
		{"issued without a grant", `UPDATE requests SET state = 'issued'`, "a request is issued with its grant"},
		{"a state that is none", `UPDATE requests SET state = 'root'`, "a request does not move that way"},
		{"a way that is none", `UPDATE requests SET state = 'ended'`, "a request does not move that way"},
		{"a life that begins at its end", `INSERT INTO requests (id, person, key, state, body, digest, asked_at, lapses_at, decided_by, decision_note, changed_at) SELECT 'r', person, '', 'ended', body, digest, 0, 0, '', '', 0 FROM requests`, "a request begins as asked"},
		{"another digest", `UPDATE requests SET digest = (SELECT receipt_key FROM hosts LIMIT 1)`, "what was asked is never edited"},
		{"another body", `UPDATE requests SET body = '{}'`, "what was asked is never edited"},
		{"a revision signed twice", `UPDATE host_sets SET envelope = (SELECT digest FROM requests)`, "a revision is signed once"},
		{"another uid", `UPDATE people SET uid = 70009 WHERE name = 'ana'`, "a name and its uid stay together"},
		{"nobody", `DELETE FROM people`, "people are disabled, not deleted"},
		{"a uid below", `INSERT INTO people VALUES ('eve', '', 0, 0, 0, '')`, "constraint"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := scene(t)
			ask(t, s, rid)
			_, err := s.one.ExecContext(t.Context(), c.sql)
			refused(t, err, c.why)
		})
	}
}

func TestGrantIsOneAndForEver(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, rid)
	_, err := s.Change(ctx, rid, noon, approve)
	must(t, err)
	_, err = s.Change(ctx, rid, noon, func(r roster.Request) (roster.Change, error) {
		return roster.Change{State: "issued", Grant: grantFor(r, "g-bbbbbbbbbbbbbbbb")}, nil
	})
	want(t, "a second grant", err, roster.ErrExists)
	for _, q := range []string{`UPDATE grants SET not_after = not_after + 1`, `UPDATE grants SET payload = envelope`} {
		_, err := s.one.ExecContext(ctx, q)
		refused(t, err, "a grant is never edited")
	}
	_, err = s.Change(ctx, rid, noon, to("ended"))
	must(t, err)
	_, err = s.one.ExecContext(ctx, `UPDATE grants SET ended_at = 0`)
	refused(t, err, "a grant ends once")
	_, err = s.Change(ctx, rid, noon, to("issued"))
	if err == nil {
		t.Error("a request was revived")
	}
}

func TestNothingIsLeftOfWhatFailed(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, rid)
	_, err := s.DecommissionHost(ctx, "db2", roster.Act{By: "root", At: noon})
	must(t, err)
	_, err = s.Change(ctx, rid, noon, approve)
	want(t, "a host is gone", err, roster.ErrDecommissioned)
	r, err := s.Request(ctx, rid)
	must(t, err)
	if r.State != "asked" || len(r.Approvals) != 0 || opened(t, s, "db1").Revision != 1 {
		t.Errorf("%+v", r)
	}
	s.Use(nil)
	if _, err = s.Change(ctx, rid, noon, approve); err == nil {
		t.Error("issued without a key")
	}
}

func TestDisabledPersonHasNothing(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, rid)
	_, err := s.Change(ctx, rid, noon, approve)
	must(t, err)
	ask(t, s, "r-bbbbbbbbbbbbbbbb")
	_, err = s.DisablePerson(ctx, "ana", roster.Act{By: "ben", At: noon})
	must(t, err)
	for id, state := range map[string]string{rid: "revoked", "r-bbbbbbbbbbbbbbbb": "denied"} {
		if r, err := s.Request(ctx, id); err != nil || r.State != state || r.DecidedBy != "ben" {
			t.Errorf("%s: %+v, %v", id, r, err)
		}
	}
	if o := opened(t, s, "db1"); len(o.Grants) != 0 {
		t.Error("her grant stands")
	}
	_, err = s.Ask(ctx, asked("r-cccccccccccccccc"), noon, roster.Change{})
	want(t, "ask", err, roster.ErrDisabled)
}

func TestDisabledApproverDoesNotCount(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, rid)
	_, err := s.DisablePerson(ctx, "ben", roster.Act{By: "ana", At: noon})
	must(t, err)
	_, err = s.Change(ctx, rid, noon, approve)
	want(t, "approve", err, roster.ErrDisabled)
}

func TestLaterHostOfTheNameGetsNoOldGrant(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, rid)
	_, err := s.Change(ctx, rid, noon, approve)
	must(t, err)
	_, err = s.DecommissionHost(ctx, "db1", roster.Act{By: "root", At: noon})
	must(t, err)
	k := roster.JoinToken{Hash: [32]byte{77}, Labels: newHost("").Labels, Expires: noon.Add(time.Hour)}
	must(t, s.PutJoinToken(ctx, k, noon))
	_, err = s.UseJoinToken(ctx, k.Hash, newHost("db1"), noon.Add(time.Minute))
	must(t, err)
	if o := opened(t, s, "db1"); len(o.Grants) != 0 {
		t.Error("the new db1 has the old one's grant")
	}
	if live, err := s.LiveOn(ctx, "ana", "db1", noon.Add(time.Minute)); err != nil || len(live) != 0 {
		t.Error("live on the new db1:", live, err)
	}
	if o := opened(t, s, "db2"); len(o.Grants) != 1 {
		t.Error("db2 has lost it")
	}
}

func TestNothingGoesOnFromARevokedGrant(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, rid)
	r, err := s.Change(ctx, rid, noon, approve)
	must(t, err)
	_, err = s.Change(ctx, rid, noon, func(roster.Request) (roster.Change, error) { return roster.Change{State: "revoked", By: "ben"}, nil })
	must(t, err)
	later := r
	later.ID, later.Key, later.Extends, later.Grant = "r-bbbbbbbbbbbbbbbb", "", r.Grant.ID, nil
	_, err = s.Ask(ctx, later, noon, roster.Change{})
	want(t, "ask", err, roster.ErrRevoked)
}

func TestDecommissionedHostTakesAnEmptySet(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, rid)
	_, err := s.Change(ctx, rid, noon, approve)
	must(t, err)
	with := opened(t, s, "db1")
	h, err := s.DecommissionHost(ctx, "db1", roster.Act{By: "ana", At: noon})
	if err != nil || !h.Decommissioned || h.Leaving != with.Revision+1 {
		t.Fatalf("%+v, %v", h, err)
	}
	if o := opened(t, s, "db1"); o.Revision != h.Leaving || len(o.Grants) != 0 {
		t.Errorf("the last set: %+v", o)
	}
	for _, r := range []roster.Report{{Revision: with.Revision, Settled: true}, {Revision: h.Leaving}, {Revision: h.Leaving, Refused: "no"}} {
		must(t, s.Applied(ctx, "db1", r, noon))
		if h, err = s.Host(ctx, "db1"); err != nil || h.Leaving == 0 {
			t.Errorf("after %+v it is gone: %v", r, err)
		}
	}
	must(t, s.Applied(ctx, "db1", roster.Report{Revision: h.Leaving, Settled: true}, noon))
	if h, err = s.Host(ctx, "db1"); err != nil || h.Leaving != 0 || !h.LeftAt.Equal(noon) {
		t.Errorf("%+v, %v", h, err)
	}
	acts, err := s.Events(ctx, roster.Search{Person: "ana", Kind: "admin", Words: []string{"decommissioned", "db1:", "1", "grants"}})
	if err != nil || len(acts) != 1 {
		t.Errorf("in the record: %v, %v", acts, err)
	}
}

// A grant that was revoked stands on the host until the host has signed that it
// does not.
func TestRevokedGrantsKeepAHostLeaving(t *testing.T) {
	for name, c := range map[string]struct {
		said    []string // "left" is a receipt of what is left
		leaving bool
	}{
		"nothing was heard":                       {nil, true},
		"it was installed":                        {[]string{"installed"}, true},
		"it was removed":                          {[]string{"installed", "removed"}, false},
		"it came back after a lease":              {[]string{"installed", "removed", "installed"}, true},
		"something is left":                       {[]string{"installed", "left"}, true},
		"what was left is gone":                   {[]string{"installed", "left", "left", "removed"}, false},
		"something is left after all":             {[]string{"installed", "removed", "left"}, true},
		"what was left of an earlier time is not": {[]string{"installed", "left", "installed", "removed"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, ctx := scene(t), t.Context()
			ask(t, s, rid)
			r, err := s.Change(ctx, rid, noon, approve)
			must(t, err)
			var records []roster.Record
			for i, k := range c.said {
				e := ledger.Entry{Kind: ledger.Installed, At: noon, Host: "db1", Grant: r.Grant.ID, Person: "ana"}
				if k != "installed" {
					receipt := ledger.Receipt{Fleet: "lab", Host: "db1", Grant: r.Grant.ID, Person: "ana", DoneAt: noon}
					if k == "left" {
						receipt.Left = []string{"account ana"}
					}
					e.Kind, e.Receipt = ledger.Removed, receipt.Seal(hostKey)
				}
				records = append(records, roster.Record{Seq: uint64(i + 1), Entry: e.Bytes()})
			}
			_, err = s.KeepRecords(ctx, "db1", "o", records)
			must(t, err)
			if live, err := s.LiveOn(ctx, "ana", "db1", noon); err != nil || (len(live) == 1) != c.leaving {
				t.Error("whom a login is given for:", live, err)
			}
			_, err = s.Change(ctx, rid, noon, func(roster.Request) (roster.Change, error) { return roster.Change{State: "revoked", By: "ben"}, nil })
			must(t, err)
			h, err := s.DecommissionHost(ctx, "db1", roster.Act{By: "ana", At: noon})
			if err != nil || (h.Leaving != 0) != c.leaving {
				t.Errorf("leaving: %d, %v", h.Leaving, err)
			}
		})
	}
}

// Two stores are two servers on one database.
func TestRaceHasOneResult(t *testing.T) {
	place := newPlace(t)
	one, two := openAt(t, place), openAt(t, place)
	addPerson(t, one, "ana")
	addPerson(t, one, "ben")
	addHost(t, one, "db1")
	addHost(t, one, "db2")
	for round := range 12 {
		id := "r-aaaaaaaaaaaaaaa" + string('a'+rune(round))
		ask(t, one, id)
		guard := func(f func(roster.Request) (roster.Change, error)) func(roster.Request) (roster.Change, error) {
			return func(r roster.Request) (roster.Change, error) {
				if r.State != "asked" {
					return roster.Change{}, errors.New("decided")
				}
				return f(r)
			}
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		done := 0
		for i, f := range []func(roster.Request) (roster.Change, error){approve, approve, to("denied"), to("withdrawn")} {
			wg.Go(func() {
				s := []*Store{one, two}[i%2]
				if _, err := s.Change(t.Context(), id, noon, guard(f)); err == nil {
					mu.Lock()
					done++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		r, err := two.Request(t.Context(), id)
		must(t, err)
		if done != 1 || (r.State == "issued") != (r.Grant != nil) {
			t.Fatalf("%d results, state %s, grant %v", done, r.State, r.Grant)
		}
	}
}

// Two grants of roles that are kept apart are given at once, on two servers:
// one stands, and of the other nothing is kept. When it has ended, the other
// may be given.
func TestOfRolesKeptApartOneIsHeld(t *testing.T) {
	place := newPlace(t)
	one, two := openAt(t, place), openAt(t, place)
	addPerson(t, one, "ana")
	addPerson(t, one, "ben")
	addHost(t, one, "db1")
	addHost(t, one, "db2")
	for round := range 6 {
		ids := []string{"r-aaaaaaaaaaaaaaa" + string('a'+rune(round)), "r-bbbbbbbbbbbbbbb" + string('a'+rune(round))}
		roles := []string{"deploy", "sign-off"}
		for i, id := range ids {
			r := asked(id)
			r.Role, r.Resolved.Name = roles[i], roles[i]
			_, err := one.Ask(t.Context(), r, noon, roster.Change{Apart: []string{roles[1-i]}})
			must(t, err)
		}
		give := func(s *Store, i int) error {
			_, err := s.Change(t.Context(), ids[i], noon, func(r roster.Request) (roster.Change, error) {
				c, err := approve(r)
				c.Apart = []string{roles[1-i]}
				return c, err
			})
			return err
		}
		var wg sync.WaitGroup
		errs := make([]error, 2)
		for i, s := range []*Store{one, two} {
			wg.Go(func() { errs[i] = give(s, i) })
		}
		wg.Wait()
		first := slices.IndexFunc(errs, func(err error) bool { return err == nil })
		if first < 0 || !errors.Is(errs[1-first], roster.ErrApart) {
			t.Fatalf("%v", errs)
		}
		if r, err := one.Request(t.Context(), ids[1-first]); err != nil || r.State != "asked" || len(r.Approvals) != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		r := asked("r-ccccccccccccccc" + string('a'+rune(round)))
		if _, err := two.Ask(t.Context(), r, noon, roster.Change{Apart: roles}); !errors.Is(err, roster.ErrApart) {
			t.Fatalf("asked for besides: %v", err)
		}
		_, err := one.Change(t.Context(), ids[first], noon, to("revoked"))
		must(t, err)
		must(t, give(two, 1-first))
		_, err = one.Change(t.Context(), ids[1-first], noon, to("revoked"))
		must(t, err)
	}
}

func TestEventsOfAGrantAreForItsPeople(t *testing.T) {
	s, ctx := scene(t), t.Context()
	addHost(t, s, "web1")
	addPerson(t, s, "eve")
	ask(t, s, rid)
	_, err := s.Change(ctx, rid, noon, approve)
	must(t, err)
	receipt := ledger.Receipt{Fleet: "lab", Host: "db1", Grant: gid, Person: "ana", Why: "time", EndedAt: noon, DoneAt: noon}
	stolen := receipt
	stolen.Host = "db2"
	removed := func(r ledger.Receipt) func(e *ledger.Entry) {
		return func(e *ledger.Entry) {
			e.Kind, e.Grant, e.Person, e.Process, e.Receipt = ledger.Removed, gid, "ana", nil, r.Seal(hostKey)
		}
	}
	looked := func(r ledger.LeftoversReceipt) func(e *ledger.Entry) {
		return func(e *ledger.Entry) {
			e.Kind, e.Grant, e.Person, e.Process, e.Receipt = ledger.Leftovers, gid, "ana", nil, r.Seal(hostKey)
		}
	}
	left := ledger.LeftoversReceipt{Fleet: "lab", Host: "db1", Grant: gid, Person: "ana", Since: noon, DoneAt: noon}
	lent := left
	lent.Person = "eve"
	_, err = s.KeepRecords(ctx, "db1", "o", []roster.Record{
		entry(1, func(e *ledger.Entry) { e.Grant, e.Person = gid, "ana" }), entry(2, removed(receipt)), entry(3, removed(stolen)),
		entry(4, looked(left)), entry(5, looked(lent)),
	})
	must(t, err)
	_, err = s.KeepRecords(ctx, "web1", "o", []roster.Record{entry(1, func(e *ledger.Entry) { e.Host, e.Grant, e.Person = "web1", gid, "ana" })})
	must(t, err)
	for who, n := range map[string]int{"ana": 5, "ben": 5, "eve": 0} {
		got, err := s.Events(ctx, roster.Search{Grant: gid, For: who, Host: "db1"})
		must(t, err)
		if len(got) != n {
			t.Errorf("%s sees %d events", who, len(got))
		}
		if n == 5 && (!got[1].ReceiptOK || got[2].ReceiptOK || !got[3].ReceiptOK || got[4].ReceiptOK || got[0].Role != "db-admin") {
			t.Errorf("%+v", got)
		}
	}
	steps, err := s.Events(ctx, roster.Search{Grant: gid, For: "ana", Kind: ledger.Decision.String()})
	if err != nil || len(steps) != 1 || steps[0].Entry.Step != "approved" || steps[0].Entry.Request != rid || len(steps[0].Entry.Digest) == 0 {
		t.Errorf("what was decided: %+v, %v", steps, err)
	}
	all, err := s.Events(ctx, roster.Search{Host: "web1"})
	if err != nil || len(all) != 1 || all[0].Kind != roster.Malformed || all[0].Entry.Grant != "" {
		t.Errorf("a host that the grant is not for: %+v, %v", all, err)
	}
}
