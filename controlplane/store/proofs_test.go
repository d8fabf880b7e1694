package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/controlplane/roster"
)

const home = "10.0.0.0/24"

// proof is one of ana's, by her passkey on the session.
func proof(session string) roster.Proof {
	return roster.Proof{Session: session, Network: home, Factor: "passkey", For: "approval", At: noon}
}

// proving is a scene in which ana has a passkey, and two browsers are signed in
// as her; on one of them she has proved herself.
func proving(t *testing.T) *Store {
	t.Helper()
	s := scene(t)
	enrol(t, s, 1, 0, false) // w-a
	must(t, s.AddSession(t.Context(), browser("w-2"), noon))
	must(t, s.ProvedFor(t.Context(), proof("w-a")))
	return s
}

// asks has a request stand on the proof, in the person's name.
func asks(t *testing.T, s *Store, n int, person string, p roster.Proof) error {
	t.Helper()
	r := asked(fmt.Sprintf("r-%016d", n))
	r.Person, r.Proof = person, &p
	_, err := s.Ask(t.Context(), r, noon, roster.Change{})
	return err
}

func TestAProofIsKeptWithItsSession(t *testing.T) {
	s, ctx := proving(t), t.Context()
	p, err := s.LastProof(ctx, "w-a", home)
	must(t, err)
	if diff := cmp.Diff(proof("w-a"), p); diff != "" {
		t.Error(diff)
	}
	if v, _, err := s.Session(ctx, "w-a", noon); err != nil || !v.Proved.Equal(noon) {
		t.Errorf("%+v, %v", v, err)
	}
	must(t, asks(t, s, 1, "ana", p))
	r, err := s.Request(ctx, "r-0000000000000001")
	must(t, err)
	if want := (roster.Proof{Factor: "passkey", For: "approval", At: noon}); r.Proof == nil || *r.Proof != want {
		t.Errorf("kept with the request: %+v", r.Proof)
	}
	later := proof("w-a")
	later.At, later.For = noon.Add(time.Minute), "request"
	must(t, s.ProvedFor(ctx, later))
	if got, err := s.LastProof(ctx, "w-a", home); err != nil || got != later {
		t.Errorf("%+v, %v", got, err)
	}
	want(t, "an earlier one than the last", asks(t, s, 2, "ana", p), roster.ErrUsed)
}

// What ends a proof, by whichever server, with what is asked as it would be by
// somebody who had looked it up before.
func TestWhatEndsAProof(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, s *Store)
		as   func(*roster.Proof)
		who  string
	}{
		{name: "another session of the same person", as: func(p *roster.Proof) { p.Session = "w-2" }},
		{name: "a session that is none", as: func(p *roster.Proof) { p.Session = "w-3" }},
		{name: "another person's session", who: "ben"},
		{name: "another network", as: func(p *roster.Proof) { p.Network = "10.0.1.0/24" }},
		{name: "a network that is not known", as: func(p *roster.Proof) { p.Network = "" }},
		{name: "another instant", as: func(p *roster.Proof) { p.At = p.At.Add(1) }},
		{name: "its session was ended", do: func(t *testing.T, s *Store) {
			t.Helper()
			must(t, s.EndSession(t.Context(), browser("w-a"), roster.SignedOut, noon))
		}},
		{name: "its session was ended by a server from before", do: func(t *testing.T, s *Store) {
			t.Helper()
			must(t, s.write(t.Context(), func(x *tx) error { return x.run(t.Context(), `DELETE FROM web_sessions WHERE id = 'w-a'`) }))
		}},
		{name: "a passkey came beside", do: func(t *testing.T, s *Store) {
			t.Helper()
			must(t, s.AddPasskey(t.Context(), key(7, "ana")))
		}},
		{name: "a passkey came beside, and went again", do: func(t *testing.T, s *Store) {
			t.Helper()
			must(t, s.AddPasskey(t.Context(), key(7, "ana")))
			must(t, s.RemovePasskey(t.Context(), key(7, "ana").ID, roster.Act{By: "ana", At: noon}))
		}},
		{name: "a device came beside", do: func(t *testing.T, s *Store) {
			t.Helper()
			i := roster.Invite{Hash: [32]byte{9}, Person: "ana", Expires: noon.Add(time.Hour), Adds: true}
			must(t, s.PutInvite(t.Context(), i, roster.Act{By: "ana", At: noon}))
			must(t, s.UseInvite(t.Context(), roster.Enrolment{
				Invite: i.Hash, Factor: roster.TOTP{Secret: []byte{7}}, DeviceName: "x", Session: roster.Session{ID: "s-a", Person: "ana", Device: make32(9), Expires: noon.Add(time.Hour)},
			}, noon))
		}},
		{name: "all was replaced", do: func(t *testing.T, s *Store) {
			t.Helper()
			enrol(t, s, 2, 3, false)
		}},
		{name: "a passkey was locked", do: func(t *testing.T, s *Store) {
			t.Helper()
			must(t, s.UpdatePasskey(t.Context(), key(0, "ana").ID, func(k roster.Passkey) (roster.Passkey, error) {
				k.Locked = true
				return k, nil
			}))
		}},
		{name: "its person was disabled", do: func(t *testing.T, s *Store) {
			t.Helper()
			_, err := s.DisablePerson(t.Context(), "ana", roster.Act{By: "ben", At: noon})
			must(t, err)
		}},
		{name: "the database was restored", do: func(t *testing.T, s *Store) {
			t.Helper()
			must(t, s.Restored(t.Context(), roster.Act{By: "root", At: noon}, "restored"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, p, who := proving(t), proof("w-a"), "ana"
			if c.do != nil {
				c.do(t, s)
			}
			if c.as != nil {
				c.as(&p)
			}
			if c.who != "" {
				who = c.who
			}
			want(t, "asked", asks(t, s, 1, who, p), roster.ErrUsed)
			if all, err := s.Requests(t.Context(), true, 10); err != nil || len(all) > 0 {
				t.Errorf("%v, %v", all, err)
			}
		})
	}
}

// A passkey that is used goes on being the factor that it was.
func TestUseOfAFactorEndsNoProof(t *testing.T) {
	s, ctx := proving(t), t.Context()
	must(t, s.UpdatePasskey(ctx, key(0, "ana").ID, func(k roster.Passkey) (roster.Passkey, error) {
		k.Body, k.UsedAt = []byte{2}, noon.Add(time.Minute)
		return k, nil
	}))
	must(t, asks(t, s, 1, "ana", proof("w-a")))
}

// On one proof stand ten requests at most; the same one again counts once, and a
// new proof starts anew.
func TestFewRequestsStandOnOneProof(t *testing.T) {
	s, ctx := proving(t), t.Context()
	for n := range roster.ProofUses {
		must(t, asks(t, s, n, "ana", proof("w-a")))
		must(t, asks(t, s, n, "ana", proof("w-a")))
	}
	want(t, "one more", asks(t, s, 99, "ana", proof("w-a")), roster.ErrUsed)
	_, err := s.LastProof(ctx, "w-a", home)
	want(t, "looked up", err, roster.ErrUnknown)
	must(t, s.ProvedFor(ctx, proof("w-a")))
	must(t, asks(t, s, 99, "ana", proof("w-a")))
}

// Of a session that ended meanwhile nothing is kept, and nothing for longer than
// it could count.
func TestOldProofsAreForgotten(t *testing.T) {
	s, ctx := proving(t), t.Context()
	must(t, s.ProvedFor(ctx, proof("w-9")))
	kept := func(want int) {
		t.Helper()
		var n int
		if must(t, s.read.QueryRowContext(ctx, `SELECT count(*) FROM proofs`).Scan(&n)); n != want {
			t.Errorf("%d are kept, not %d", n, want)
		}
	}
	kept(1)
	p := proof("w-2")
	p.At = noon.Add(roster.ProofLife - 1)
	must(t, s.ProvedFor(ctx, p))
	kept(2)
	p.At = noon.Add(roster.ProofLife)
	must(t, s.ProvedFor(ctx, p))
	kept(1)
}

// A server from before goes on writing sessions while the new table is there.
func TestProofsComeBesideServersFromBefore(t *testing.T) {
	ctx, place := t.Context(), emptyPlace(t)
	old := &Store{fleet: "lab", me: "old", changed: make(chan struct{})}
	must(t, old.connect(place))
	p, err := old.provider()
	must(t, err)
	_, err = p.UpTo(ctx, 153)
	must(t, err)
	_, err = old.one.ExecContext(ctx, `INSERT INTO people (name, full_name, uid, admin) VALUES ('ana', '', 70000, 0)`)
	must(t, err)
	must(t, old.AddSession(ctx, browser("w-1"), noon))

	s := openAt(t, place) // the first new one
	_, err = s.LastProof(ctx, "w-1", home)
	want(t, "of before", err, roster.ErrUnknown)
	must(t, s.ProvedFor(ctx, proof("w-1")))
	must(t, old.AddSession(ctx, browser("w-2"), noon))
	must(t, old.Proved(ctx, "w-1", noon.Add(time.Minute)))
	if got, err := s.LastProof(ctx, "w-1", home); err != nil || got != proof("w-1") {
		t.Errorf("%+v, %v", got, err)
	}
	must(t, old.EndSession(ctx, browser("w-1"), roster.SignedOut, noon))
	_, err = s.LastProof(ctx, "w-1", home)
	want(t, "after its session", err, roster.ErrUnknown)
	must(t, old.Close())
}
