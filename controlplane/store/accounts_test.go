package store

import (
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

const issuer = "https://login.example"

func arrival(subject, person string, s roster.Session) roster.Arrival {
	s.Person = person
	return roster.Arrival{Account: roster.Account{Issuer: issuer, Subject: subject, Person: person}, Session: s, DeviceName: "laptop"}
}

func line(id string, device byte) roster.Session {
	return roster.Session{ID: id, Device: append(make([]byte, 31), device), Expires: noon.Add(time.Hour)}
}

func TestArrive(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	addPerson(t, s, "ana")
	addPerson(t, s, "ben")
	arrive := func(v roster.Arrival, bind bool) error { v.Bind = bind; return s.Arrive(ctx, v, noon) }

	want(t, "an account of nobody's", arrive(arrival("sub-1", "ana", browser("w-1")), false), roster.ErrUnknown)
	must(t, arrive(arrival("sub-1", "ana", browser("w-1")), true))
	want(t, "one account for two", arrive(arrival("sub-1", "ben", browser("w-2")), true), roster.ErrExists)
	want(t, "two accounts for one", arrive(arrival("sub-2", "ana", browser("w-2")), true), roster.ErrExists)
	want(t, "somebody else's account", arrive(arrival("sub-1", "ben", browser("w-2")), false), roster.ErrUnknown)
	if a, err := s.Account(ctx, issuer, "sub-1"); err != nil || a.Person != "ana" {
		t.Errorf("%+v, %v", a, err)
	}
	_, err := s.Account(ctx, "https://evil.example", "sub-1")
	want(t, "the same subject of another issuer", err, roster.ErrUnknown)

	must(t, arrive(arrival("sub-1", "ana", line("s-1", 1)), false))
	must(t, arrive(arrival("sub-1", "ana", line("s-2", 1)), false))
	must(t, arrive(arrival("sub-b", "ben", browser("w-3")), true))
	want(t, "a device of ana's", arrive(arrival("sub-b", "ben", line("s-3", 1)), false), roster.ErrUsed)
	if all, err := s.Sessions(ctx, "ana", noon); err != nil || len(all) != 3 || !all[0].Proved.IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
	signed, err := s.Events(ctx, roster.Search{Kind: ledger.SignIn.String(), Limit: 10})
	must(t, err)
	said := told(t, s)
	for _, e := range signed {
		said += e.Entry.Step + " " + e.Entry.Text + "\n"
	}
	for _, text := range []string{`proved to be account "sub-1" at ` + issuer, `added device "laptop"`, "signed-in browser Firefox on Linux, by " + issuer, "signed-in device laptop, by " + issuer} {
		if !strings.Contains(said, text) {
			t.Errorf("the record does not tell: %s", text)
		}
	}

	_, err = s.DisablePerson(ctx, "ana", roster.Act{By: "root", At: noon})
	must(t, err)
	want(t, "disabled", arrive(arrival("sub-1", "ana", browser("w-4")), false), roster.ErrDisabled)
	if a, err := s.Account(ctx, issuer, "sub-1"); err != nil || a.Person != "ana" {
		t.Errorf("the account is free for somebody else: %+v, %v", a, err)
	}
}

// A code that takes the place of all that was there takes that of the account,
// too: it has to be proved with what is enrolled now.
func TestCodeUnbindsTheAccount(t *testing.T) {
	for adds, stays := range map[bool]bool{false: false, true: true} {
		s, ctx := fresh(t), t.Context()
		addPerson(t, s, "ana")
		v := arrival("sub-1", "ana", browser("w-1"))
		v.Bind = true
		must(t, s.Arrive(ctx, v, noon))
		must(t, s.PutInvite(ctx, roster.Invite{Hash: [32]byte{1}, Person: "ana", Expires: noon.Add(time.Hour), Adds: adds}, roster.Act{By: "ada", At: noon}))
		k := key(1, "ana")
		must(t, s.UseInvite(ctx, roster.Enrolment{Invite: [32]byte{1}, Passkey: &k, Session: browser("w-2")}, noon))
		if _, err := s.Account(ctx, issuer, "sub-1"); (err == nil) != stays {
			t.Errorf("a code that adds: %v: %v", adds, err)
		}
	}
}
