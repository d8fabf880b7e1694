package notify

import (
	"context"
	"errors"
	"io"
	netmail "net/mail"
	"slices"
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/ledger"
)

// Whose word is waited for is told so, and the requester what became of it: each
// once, by herself, over restarts.
func TestEachIsToldByHerself(t *testing.T) {
	o := newOffice(t)
	o.ask()
	o.quietly()
	for _, l := range o.told("ben", "cy") {
		m, err := netmail.ReadMessage(strings.NewReader(l.Text))
		if err != nil {
			t.Fatal(err)
		}
		h := m.Header
		if h.Get("To") != "<"+l.To+">" || h.Get("From") != `"Curfew" <curfew@example.org>` || h.Get("Cc")+h.Get("Bcc") != "" || h.Get("Auto-Submitted") != "auto-generated" {
			t.Errorf("%v", h)
		}
		if !strings.HasSuffix(h.Get("Message-ID"), "@example.org>") || l.From != "curfew@example.org" {
			t.Errorf("%v, from %s", h.Get("Message-ID"), l.From)
		}
		if got := l.Body(t); got != "ana asks for ops on db1 for 1h0m0s: disk <!channel> full &\n\nIt waits for your word: https://curfew.example:7443/requests/r-1\n" {
			t.Errorf("%q", got)
		}
	}
	o.start()
	o.quietly()
	o.told()
	o.decide(roster.EscalatedStep, "", "eve may approve it too")
	o.set(func() { o.people.waits = []string{"ben", "cy", "eve"} })
	o.quietly()
	o.told("eve")
	o.decide("approved", "ben", "go")
	o.quietly()
	if l := o.told("ana"); !strings.Contains(l[0].Body(t), "was approved by ben: go\n\nhttps://curfew.example:7443/requests/r-1\n") {
		t.Errorf("%q", l[0].Body(t))
	}
	o.set(func() { o.request.State = "issued" })
	for _, c := range []struct{ step, by, want string }{
		{"denied", "ben", "ana"},
		{"withdrawn", "ana", ""},
		{"withdrawn", "ada", "ana"},
		{"lapsed", "", "ana"},
		{"revoked", "ben", "ana"},
		{"revoked", "ana", ""},
		{"issued", "", ""},
	} {
		o.decide(c.step, c.by, "why")
		o.quietly()
		o.told(strings.Fields(c.want)...)
	}
	o.happen(ledger.Entry{Kind: ledger.Admin, Step: roster.LentStep, Person: "cy", Object: "eve", Text: "eve may approve in place of cy"})
	o.happen(ledger.Entry{Kind: ledger.Drift, Text: "an alert concerns nobody by name"})
	o.quietly()
	o.told("eve")
	o.start()
	o.quietly()
	o.told()
}

// Who is away is told that nobody stands in for her any more, and who did; each of
// her own alone, and not by herself.
func TestWhoIsAwayIsToldThatNobodyStandsIn(t *testing.T) {
	o := newOffice(t)
	ended := func(by, away, why string) {
		d := roster.Delegation{Away: away, StandIn: "ben"}
		o.set(func() { o.people.ended = append(o.people.ended, d) })
		o.happen(ledger.Entry{Kind: ledger.Admin, Step: roster.TakenStep, Person: by, Object: "ben", Text: d.Taken(why)})
	}
	ended("ben", "cy", "")
	o.quietly()
	o.told("cy")
	ended("cy", "cy", "")
	o.quietly()
	o.told("ben")
	ended("ada", "ana", ": the account of one of them was disabled")
	ended("ada", "an", ": the account of one of them was disabled")
	o.quietly()
	for _, l := range o.told("ana", "ben", "ben") {
		if l.To == "ana@example.com" && !strings.HasPrefix(l.Body(t), "ben may no longer approve in place of ana: ") {
			t.Errorf("%q", l.Body(t))
		}
	}
}

// What is asked on a request is told to who made it, and what she answers to those
// who asked; a channel is not told.
func TestQuestionsAndAnswersAreTold(t *testing.T) {
	o := newOffice(t)
	o.ask()
	o.quietly()
	o.told("ben", "cy")
	o.decide(roster.RemarkStep, "ana", "please")
	o.quietly()
	o.told()
	o.decide(roster.RemarkStep, "cy", "which disk,\nand since when?")
	o.decide(roster.RemarkStep, "eve", "and why?")
	o.quietly()
	letters := o.told("ana", "ana")
	if got := letters[0].Body(t); got != "cy says of ana's request for ops on db1: which disk, and since when?\n\nhttps://curfew.example:7443/requests/r-1\n" {
		t.Errorf("%q", got)
	}
	o.decide(roster.RemarkStep, "ana", "sdb")
	o.quietly()
	o.told("cy", "eve")
	r := newReceiver(t, 0)
	chat := Target{Name: "chat", Form: FormSlack, ToFile: file(t, r.URL)}
	o.world.turn(t, chat)
	o.decide(roster.RemarkStep, "ana", "sdc")
	o.decide("denied", "ben", "no")
	o.world.turn(t, chat)
	if n := len(r.all()); n != 1 {
		t.Errorf("a channel is told %d times", n)
	}
}

// Nobody has to happen for it: who is on call changes by the clock.
func TestWhoComesOnCallIsTold(t *testing.T) {
	o := newOffice(t)
	o.set(func() { o.people.waits = nil })
	o.ask()
	o.quietly()
	o.told()
	o.set(func() { o.people.waits = []string{"cy"} })
	o.pass(lookAgain)
	o.quietly()
	o.told("cy")
}

// What waited before there was a target is not told.
func TestANewBoxTellsFromThenOn(t *testing.T) {
	o := newOffice(t)
	o.ask()
	o.set(func() { o.people.waits = nil })
	o.quietly()
	o.pass(time.Hour)
	o.target.Name = "others"
	o.start()
	o.set(func() { o.people.waits = []string{"ben"} })
	o.quietly()
	o.told()
}

// An end that is near is told to the one whose it is, twice, over restarts.
func TestAnEndIsToldToWhoseItIs(t *testing.T) {
	o := newOffice(t)
	o.set(func() {
		o.request.State, o.request.Grant = "issued", &grant.Grant{ID: "g-1", NotBefore: noon, NotAfter: noon.Add(20 * time.Minute)}
	})
	for range 21 {
		o.start()
		o.quietly()
		o.pass(time.Minute)
	}
	o.told("ana", "ana")
}

// Nor does it wait for what came before it, when the mail server was away.
func TestAnEndIsToldFirst(t *testing.T) {
	o := newOffice(t)
	o.at.Stop()
	o.decide("denied", "ben", "no")
	_ = o.turn()
	o.pass(time.Second)
	o.set(func() {
		o.request.State, o.request.Grant = "issued", &grant.Grant{ID: "g-1", NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(5*time.Minute + time.Second)}
	})
	_ = o.turn()
	o.at.Listen()
	o.quietly()
	if l := o.told("ana", "ana"); !strings.Contains(l[0].Text, "ends in 5 minutes") {
		t.Errorf("%s", l[0].Text)
	}
}

// Nor for a mail server that takes its time with each mail.
func TestAnEndWaitsForNoSlowMailServer(t *testing.T) {
	o := newOffice(t)
	o.at.Slow = func() { o.pass(sendWithin) }
	o.ask()
	if more, err := o.n.turn(t.Context(), o.n.lines[0]); err != nil || !more {
		t.Errorf("more: %v, %v", more, err)
	}
	o.told("ben")
	o.quietly()
	o.told("cy")
}

// Who has no address, is disabled or was never added gets none, and holds up
// nobody; also if she is by the time that it is handed in.
func TestWhoCannotBeTold(t *testing.T) {
	o := newOffice(t)
	o.set(func() {
		o.people.known["ben"] = roster.Person{Name: "ben"}
		o.people.known["eve"] = roster.Person{Name: "eve", Email: "eve@example.com", Disabled: true}
		o.people.waits = []string{"ana", "ben", "cy", "eve", "nobody"}
	})
	o.at.Says("RCPT cy@example.com", "450 4.2.0 later")
	o.ask()
	o.quietly()
	o.told()
	o.set(func() { o.people.known["cy"] = roster.Person{Name: "cy", Email: "cy@example.com", Disabled: true} })
	o.at.Says("RCPT cy@example.com", "")
	o.pass(retryMost)
	o.quietly()
	o.told()
	if open, _ := o.OpenMails(t.Context(), "people"); len(open) != 0 {
		t.Errorf("%d wait for somebody who is out", len(open))
	}
}

// What one person's address refuses neither holds up the others' mails nor doubles
// them, over a restart too.
func TestARefusalIsOnePersonsOwn(t *testing.T) {
	for _, answer := range []string{"550 5.1.1 <ben@example.com>: no such user", "450 4.2.0 greylisted"} {
		o := newOffice(t)
		o.at.Says("RCPT ben@example.com", answer)
		o.ask()
		o.quietly()
		o.told("cy")
		o.decide("denied", "cy", "no")
		o.quietly()
		o.told("ana")
		if s := o.log.String(); strings.Count(s, "mail is not taken") != 1 || !strings.Contains(s, "person=ben") || !strings.Contains(s, answer[:3]) || strings.Contains(s, "example.com") {
			t.Errorf("logged: %s", s)
		}
		tried := o.at.Tried("ben@example.com")
		o.quietly()
		if again := o.at.Tried("ben@example.com"); again != tried {
			t.Errorf("tried again at once")
		}
		o.start() // a server that starts tries at once, and after a minute
		o.quietly()
		o.told()
		o.at.Says("RCPT ben@example.com", "")
		o.pass(retryMost)
		o.quietly()
		o.told("ben")
		o.pass(retryMost)
		o.quietly()
		o.told()
	}
}

// Another address is tried as soon as there is one, and not when the old one would
// have been.
func TestAnAddressThatIsMendedIsTriedAtOnce(t *testing.T) {
	o := newOffice(t)
	o.at.Says("RCPT ben@example.com", "550 no")
	o.ask()
	o.quietly()
	o.told("cy")
	o.set(func() { o.people.known["ben"] = roster.Person{Name: "ben", Email: "benno@example.com"} })
	o.pass(lookAgain)
	o.quietly()
	o.told("benno")
	if n := o.at.Tried("ben@example.com"); n != 1 {
		t.Errorf("the old one was tried %d times", n)
	}
}

// What could not be told while a request waited is not told once it does no more.
func TestNobodyIsToldToDecideWhatIsDecided(t *testing.T) {
	o := newOffice(t)
	o.at.Says("RCPT ben@example.com", "450 4.2.0 greylisted")
	o.ask()
	o.quietly()
	o.told("cy")
	o.set(func() { o.request.State = "denied" })
	o.at.Says("RCPT ben@example.com", "")
	o.pass(retryMost)
	o.quietly()
	o.told()
	if open, _ := o.OpenMails(t.Context(), "people"); len(open) != 0 {
		t.Errorf("%d wait", len(open))
	}
}

// It is tried for an hour, at longer and longer times; then it is no news.
func TestAMailIsGivenUpAfterAnHour(t *testing.T) {
	o := newOffice(t)
	o.at.Says("RCPT ben@example.com", "550 no")
	o.ask()
	for range 62 {
		o.quietly()
		o.pass(time.Minute)
	}
	if n := o.at.Tried("ben@example.com"); n != 6 { // at 0, 1, 3, 7, 15 and 31 minutes
		t.Errorf("tried %d times", n)
	}
	o.told("cy")
	o.at.Says("RCPT ben@example.com", "")
	o.quietly()
	o.start()
	o.quietly()
	o.told()
	if !strings.Contains(o.log.String(), "too late to notify") {
		t.Error(o.log)
	}
}

// A mail server that is away, goes away or takes nothing is waited for: nothing is
// lost, and what it took is not told again.
func TestAMailServerIsWaitedFor(t *testing.T) {
	for name, what := range map[string][2]string{
		"it goes down":               {"MAIL", "421 going down"},
		"it cuts the connection":     {"DATA", "cut"},
		"it refuses the sender":      {"MAIL", "550 5.7.1 not you"},
		"it refuses what it is sent": {"TEXT", "552 5.3.4 too much"},
		"it is too busy":             {"HELLO", "451 4.3.2 busy"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t)
			o.at.Says(what[0], what[1])
			o.ask()
			_ = o.turn()
			o.told()
			o.at.Says(what[0], "")
			o.pass(retryMost)
			o.quietly()
			o.told("ben", "cy")
		})
	}
	o := newOffice(t)
	o.at.Stop()
	o.ask()
	if err := o.turn(); !errors.Is(err, errAway) {
		t.Errorf("nobody is there: %v", err)
	}
	o.at.Listen()
	o.quietly()
	o.told("ben", "cy")
}

// What was taken just before the server died comes again under the same id.
func TestAMailComesAgainAsTheSame(t *testing.T) {
	o := newOffice(t)
	o.set(func() { o.people.waits, o.people.cannot = []string{"ben"}, io.ErrUnexpectedEOF })
	o.ask()
	if err := o.turn(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	first := o.told("ben")[0].Header(t, "Message-ID")
	o.set(func() { o.people.cannot = nil })
	o.start()
	o.quietly()
	if again := o.told("ben")[0].Header(t, "Message-ID"); again != first || len(first) < 20 {
		t.Errorf("%s and %s", first, again)
	}
}

// No text of others' makes a header, another recipient or the end of a mail.
func TestTextsOfOthersStayInTheirPlace(t *testing.T) {
	o := newOffice(t)
	o.set(func() {
		o.request.Role = "ops\r\nBcc: mal@example.com"
		o.request.Hosts = []string{"db1\nTo: mal@example.com"}
		o.request.Reason = "Ünï\r\n.\r\nMAIL FROM:<mal@example.com>\r\n\u2028<b>x</b>@ana " + strings.Repeat("lang ", 400)
		o.people.waits = []string{"ben"}
	})
	o.ask()
	o.quietly()
	l := o.told("ben")[0]
	m, err := netmail.ReadMessage(strings.NewReader(l.Text))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range m.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{"Auto-Submitted", "Content-Transfer-Encoding", "Content-Type", "Date", "From", "Message-Id", "Mime-Version", "Subject", "To"}; !slices.Equal(names, want) {
		t.Errorf("headers %q", names)
	}
	if s := l.Header(t, "Subject"); len([]rune(s)) != subjectMost || !strings.HasPrefix(s, "Curfew: ana asks for ops  Bcc: mal@example.com on db1 To: mal@example.com for 1h0m0s: Ünï") {
		t.Errorf("subject %q", s)
	}
	for line := range strings.SplitSeq(l.Text, "\n") {
		if len(line) > 998 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
	if body := l.Body(t); strings.Count(body, "\n") != 3 || !strings.Contains(body, "Ünï  .  MAIL FROM:<mal@example.com>") {
		t.Errorf("body %q", body)
	}
}

// A mail server that takes its time before it takes the first is handed one all the
// same in each turn, and not none for ever.
func TestAMailServerThatIsSlowToBeginIsHandedOne(t *testing.T) {
	o := newOffice(t)
	ask := o.n.Awaited
	o.n.Awaited = func(ctx context.Context, all []roster.Request) (map[string][][]string, error) {
		o.pass(sendWithin) // as to dial may take
		return ask(ctx, all)
	}
	o.ask()
	o.quietly()
	o.told("ben", "cy")
}
