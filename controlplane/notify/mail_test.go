package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	netmail "net/mail"
	"slices"
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/ledger"
	"curfew.internal/test/postoffice"
)

// people is what a world knows of people, and what they are to be told.
type people struct {
	known  map[string]roster.Person
	waits  []string // whose word the request waits for
	mails  []roster.Mail
	done   map[string]bool
	cannot error    // end a mail
	asked  int      // how often somebody was asked for
	added  []string // by an escalation
	more   int      // requests that wait besides, for the same
}

func (w *world) Person(_ context.Context, name string) (roster.Person, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.people.asked++
	p, ok := w.people.known[name]
	if !ok {
		return p, fmt.Errorf("person: %w", roster.ErrUnknown)
	}
	return p, nil
}

func (w *world) Asked(context.Context) ([]roster.Request, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.request.State != "asked" {
		return nil, nil
	}
	all := []roster.Request{w.request}
	for i := range w.people.more {
		one := w.request
		one.ID = fmt.Sprintf("r-%d", i+2)
		all = append(all, one)
	}
	return all, nil
}

func (w *world) PutMails(_ context.Context, all []roster.Mail, _ time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range all {
		if !slices.ContainsFunc(w.people.mails, func(o roster.Mail) bool {
			return o.Target == m.Target && o.What == m.What && o.Request == m.Request && o.Person == m.Person
		}) {
			w.people.mails = append(w.people.mails, m)
		}
	}
	return nil
}

func (w *world) OpenMails(_ context.Context, target string) ([]roster.Mail, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.people.mails), func(m roster.Mail) bool { return m.Target != target || w.people.done[m.ID] }), nil
}

func (w *world) EndMail(_ context.Context, id string, _ time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.people.cannot != nil {
		return w.people.cannot
	}
	w.people.done[id] = true
	return nil
}

func (w *world) Addresses(context.Context) (map[string]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]string{}
	for name, p := range w.people.known {
		if !p.Disabled && p.Email != "" {
			all[name] = p.Email
		}
	}
	return all, nil
}

func (w *world) Mailed(_ context.Context, target, what string) (map[string][]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string][]string{}
	for _, m := range w.people.mails {
		if m.Target == target && m.What == what {
			all[m.Request] = append(all[m.Request], m.Person)
		}
	}
	return all, nil
}

func (w *world) awaited(_ context.Context, asked []roster.Request) (map[string][][]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string][][]string{}
	for _, r := range asked {
		all[r.ID] = [][]string{slices.Clone(w.people.waits), slices.Clone(w.people.added)}
	}
	return all, nil
}

// office is a world in which people are told by mail, and the one who tells them.
type office struct {
	*testing.T
	*world
	at     *postoffice.Office
	target Target
	n      *Notifier
	log    *strings.Builder
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{T: t, world: newWorld(), at: postoffice.New(t), log: &strings.Builder{}}
	o.people = people{known: map[string]roster.Person{}, done: map[string]bool{}, waits: []string{"ben", "cy"}}
	for _, name := range []string{"ana", "ben", "cy", "eve"} {
		o.people.known[name] = roster.Person{Name: name, Email: name + "@example.com"}
	}
	o.target = Target{Name: "people", Form: FormMail, ToFile: file(t, "smtp://"+o.at.Address+"/?from=Curfew+%3Ccurfew%40example.org%3E&tls=off")}
	o.request.State = "denied" // until it is asked
	o.start()
	o.quietly()
	return o
}

// start is a server that starts, or starts again.
func (o *office) start() {
	o.Helper()
	var err error
	if o.n, err = New("https://curfew.example:7443", []Target{o.target}, o.world, o.world, slog.New(slog.NewTextHandler(o.log, nil))); err != nil {
		o.Fatal(err)
	}
	o.n.Awaited = o.awaited
}

// turn has it look until it has no more to do, and returns what it says.
func (o *office) turn() error {
	o.Helper()
	for range 100 {
		if more, err := o.n.turn(o.Context(), o.n.lines[0]); err != nil || !more {
			return err
		}
	}
	o.Fatal("it comes to no end")
	return nil
}

func (o *office) ask() {
	o.mu.Lock()
	o.request.State, o.request.AskedAt = "asked", o.now
	o.mu.Unlock()
	o.decide("asked", "ana", "")
}

func (o *office) decide(step, by, text string) {
	o.happen(ledger.Entry{Kind: ledger.Decision, Request: "r-1", Step: step, Person: by, Text: text})
}

func (o *office) set(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

// told checks who got mail, in whichever order, since the last look.
func (o *office) told(want ...string) []postoffice.Letter {
	o.Helper()
	got := o.at.Took()
	var to []string
	for _, l := range got {
		to = append(to, strings.TrimSuffix(l.To, "@example.com"))
	}
	slices.Sort(to)
	if !slices.Equal(to, want) {
		o.Fatalf("told %q and not %q\n%s", to, want, o.log)
	}
	return got
}

func (o *office) quietly() {
	o.Helper()
	if err := o.turn(); err != nil {
		o.Fatal(err)
	}
}

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
	o.happen(ledger.Entry{Kind: ledger.Admin, Step: roster.TakenStep, Person: "ben", Object: "ben", Text: "ben may no longer approve in place of cy"})
	o.happen(ledger.Entry{Kind: ledger.Drift, Text: "an alert concerns nobody by name"})
	o.quietly()
	o.told("eve")
	o.start()
	o.quietly()
	o.told()
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

// Of a crowd some are told, and the log says so; also by parts. Whom its escalation
// adds is not among the crowd, and nor is who comes after it in the next step.
func TestACrowdIsNotTold(t *testing.T) {
	o := newOffice(t)
	var all []string
	for i := range mostWaited + 10 {
		name := fmt.Sprintf("p%03d", i)
		all = append(all, name)
		o.people.known[name] = roster.Person{Name: name, Email: name + "@example.com"}
	}
	o.set(func() { o.people.waits = all[:mostWaited-10] })
	o.ask()
	o.quietly()
	o.told(all[:mostWaited-10]...)
	o.set(func() { o.people.waits = all })
	for range 3 {
		o.pass(lookAgain)
		o.quietly()
	}
	o.told(all[mostWaited-10 : mostWaited]...)
	o.set(func() { o.people.added = []string{"eve"} })
	o.pass(lookAgain)
	o.quietly()
	o.told("eve")
	o.set(func() { o.people.waits, o.people.added = []string{"ben", "p005"}, nil })
	o.pass(lookAgain)
	o.quietly()
	o.told("ben")
	if s := o.log.String(); strings.Count(s, "more people than are told by mail") != 1 {
		t.Error(s)
	}
}

// Many requests wait for the same crowd, of whom few have an address: a look asks
// for none of the others by herself, and each who has one is told of each.
func TestALookAsksForNobodyByHerself(t *testing.T) {
	o := newOffice(t)
	for i := range 1000 {
		o.people.waits = append(o.people.waits, fmt.Sprintf("p%03d", i))
	}
	o.people.known["cy"] = roster.Person{Name: "cy"}
	o.people.more = 2 * mailsAtOnce
	o.ask()
	o.quietly()
	if n := len(o.at.Took()); n != 1+2*mailsAtOnce {
		t.Errorf("%d are told", n)
	}
	if o.people.asked > 2*(1+2*mailsAtOnce) { // who is told, when that is kept and when it is handed in
		t.Errorf("it asked %d times", o.people.asked)
	}
}
