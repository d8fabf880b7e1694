package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
)

func mailTo(person, what, request string) roster.Mail {
	return roster.Mail{
		ID: "m-" + person + what + request, Target: "mail", What: what, Request: request, Person: person, At: noon, Subject: "s", Body: "ana asks",
	}
}

func openMails(t *testing.T, s *Store, target string) string {
	t.Helper()
	all, err := s.OpenMails(t.Context(), target)
	must(t, err)
	var ids []string
	for _, m := range all {
		ids = append(ids, m.ID)
	}
	return strings.Join(ids, " ")
}

// A person is told a message once by each target, over restarts too.
func TestMailsAreToldOnce(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, rid)
	one, other := mailTo("ana", "waits", rid), mailTo("ben", "waits", rid)
	must(t, s.PutMails(ctx, []roster.Mail{one, other}, noon))
	must(t, s.EndMail(ctx, one.ID, noon))
	again := one
	again.ID = "m-2"
	must(t, s.PutMails(ctx, []roster.Mail{again, other}, noon))
	if got := openMails(t, s, "mail"); got != other.ID {
		t.Errorf("open: %q", got)
	}
	if got := openMails(t, s, "another"); got != "" {
		t.Errorf("open for another target: %q", got)
	}
	if all, err := s.OpenMails(ctx, "mail"); err != nil || len(all) != 1 || all[0] != other {
		t.Errorf("%+v, %v", all, err)
	}
	var left string
	must(t, s.one.QueryRowContext(ctx, `SELECT subject || body FROM mails WHERE id = ?`, one.ID).Scan(&left))
	if left != "" {
		t.Errorf("what was told is kept: %q", left)
	}
	if got, err := s.Mailed(ctx, "mail", "waits"); err != nil || fmt.Sprint(got) != "map["+rid+":[ana ben]]" {
		t.Errorf("%v, %v", got, err)
	}
	// The same person hears the same of another request, and from another target.
	second := mailTo("ana", "waits", "r-other")
	elsewhere := one
	elsewhere.ID, elsewhere.Target = "m-3", "another"
	must(t, s.PutMails(ctx, []roster.Mail{second, elsewhere}, noon))
	if got := openMails(t, s, "mail") + " " + openMails(t, s, "another"); got != "m-anawaitsr-other "+other.ID+" m-3" {
		t.Errorf("open: %q", got)
	}
}

// What is long told is forgotten; while a request waits, it is not.
func TestMailsAreForgotten(t *testing.T) {
	s, ctx := scene(t), t.Context()
	ask(t, s, rid)
	for _, m := range []roster.Mail{mailTo("ben", "waits", rid), mailTo("ana", "event-1", "r-over"), mailTo("ben", "event-1", "")} {
		must(t, s.PutMails(ctx, []roster.Mail{m}, noon))
		if m.Person == "ben" {
			must(t, s.EndMail(ctx, m.ID, noon))
		}
	}
	left := func(at time.Time) (n int) {
		t.Helper()
		must(t, s.PutMails(ctx, nil, at))
		must(t, s.one.QueryRowContext(ctx, `SELECT count(*) FROM mails`).Scan(&n))
		return n
	}
	if n := left(noon.Add(mailsKept)); n != 3 {
		t.Errorf("%d are left", n)
	}
	later := noon.Add(mailsKept + time.Second)
	if n := left(later); n != 2 { // one is open, one of a request that waits
		t.Errorf("%d are left", n)
	}
	_, err := s.Change(ctx, rid, noon, approve)
	must(t, err)
	if n := left(later); n != 1 {
		t.Errorf("%d are left", n)
	}
}

// Who can be told is who has an address and is not disabled.
func TestWhoCanBeTold(t *testing.T) {
	s, ctx := scene(t), t.Context()
	a := roster.Act{By: "root", At: noon}
	for _, name := range []string{"ana", "ben"} {
		_, err := s.SetEmail(ctx, name, name+"@example.com", a)
		must(t, err)
	}
	_, err := s.DisablePerson(ctx, "ben", a)
	must(t, err)
	if got, err := s.Addresses(ctx); err != nil || fmt.Sprint(got) != "map[ana:ana@example.com]" {
		t.Errorf("%v, %v", got, err)
	}
}
