package notify

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"curfew.internal/controlplane/roster"
)

const (
	// waits is the message that a request waits for its reader.
	waits = "waits"
	// mostWaited is how many people of one circle are told of a request that it waits
	// for them.
	mostWaited = 50
	// mailsAtOnce is how many mails are handed in in one turn.
	mailsAtOnce = 20
	// subjectMost is how many characters of a message stand in a subject.
	subjectMost = 100
)

// Mails keeps what people are told by mail, each by herself.
type Mails interface {
	Person(ctx context.Context, name string) (roster.Person, error)
	// Asked returns the requests that wait to be decided.
	Asked(ctx context.Context) ([]roster.Request, error)
	// PutMails keeps mails until they end. Who was told the same is not again.
	PutMails(ctx context.Context, all []roster.Mail, at time.Time) error
	OpenMails(ctx context.Context, target string) ([]roster.Mail, error)
	EndMail(ctx context.Context, id string, at time.Time) error
	// Addresses are where people are told by mail, of all who can be.
	Addresses(ctx context.Context) (map[string]string, error)
	// Mailed are the people who were told a message, or are to be, by request.
	Mailed(ctx context.Context, target, what string) (map[string][]string, error)
}

// A box is where mails to people lie until a mail server takes them. Each goes its
// own way from there: who cannot be reached keeps nobody else waiting.
type box struct {
	Target
	n       *Notifier
	looked  time.Time         // when it was last looked whom requests wait for
	moved   bool              // something happened since that may have changed it
	tries   map[string]*try   // of mails that were not taken yet, by id
	known   map[string]string // addresses, as of the last look
	crowded map[string]bool   // requests of which it was said that they wait for too many
}

func newBox(n *Notifier, t Target) *box {
	return &box{Target: t, n: n, tries: map[string]*try{}, crowded: map[string]bool{}}
}

// send puts what there is to tell into the box, for those whom it concerns.
func (b *box) send(ctx context.Context, m Message) error {
	now := b.n.clock.Now().Wall
	var all []roster.Mail
	for _, name := range m.to {
		email, err := b.n.reach(ctx, name)
		if err != nil {
			return err
		}
		if email != "" {
			all = append(all, b.letter(m, name, now))
		}
	}
	if len(all) == 0 {
		return nil
	}
	return b.n.store.PutMails(ctx, all, now)
}

// reach is where a person is told by mail; empty: nowhere.
func (n *Notifier) reach(ctx context.Context, name string) (string, error) {
	p, err := n.store.Person(ctx, name)
	if errors.Is(err, roster.ErrUnknown) || p.Disabled {
		return "", nil // the policy may name whom nobody has added
	}
	return p.Email, err
}

// letter is a message as one person reads it.
func (b *box) letter(m Message, person string, now time.Time) roster.Mail {
	to := m.Link
	if to == "" && m.Request != "" {
		to = "request " + m.Request
	}
	body := read(m.Text) + "\n"
	if m.ID == waits {
		body += "\nIt waits for your word: " + to + "\n"
	} else if to != "" {
		body += "\n" + to + "\n"
	}
	return roster.Mail{
		ID: strings.ToLower(rand.Text()), Target: b.Name, What: m.ID, Request: m.Request, Person: person, At: now, Subject: subject(m.Text), Body: body,
	}
}

// read is a text without what keeps chats from making something of it.
func read(text string) string { return strings.ReplaceAll(text, "\u200b", "") }

// subject is the beginning of a message, on one line whatever is in it.
func subject(text string) string {
	s := []rune(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, "Curfew: "+read(text)))
	if len(s) > subjectMost {
		s = append(s[:subjectMost-1], '…')
	}
	return string(s)
}

// mail tells whom requests wait for, and hands in what lies in the box.
func (n *Notifier) mail(ctx context.Context, b *box) (more bool, err error) {
	now := n.clock.Now().Wall
	if b.moved || now.Before(b.looked) || !now.Before(b.looked.Add(lookAgain)) {
		if err := n.waiting(ctx, b, now); err != nil {
			return false, err
		}
		b.moved, b.looked = false, now
	}
	return n.deliver(ctx, b, now)
}

// waiting has those told whom a request waits for and who were not told of it yet.
// It looks at what is, and not at what happened: so it does not matter whether
// somebody may approve it from the beginning, or by a step, an escalation, a
// delegation, a change of the policy or who is on call.
func (n *Notifier) waiting(ctx context.Context, b *box, now time.Time) error {
	since, err := n.from(ctx, "notify/"+b.Name+"/since", func(context.Context) (uint64, error) { return uint64(now.Unix()), nil }) //nolint:gosec // after 1970
	if err != nil {
		return err
	}
	asked, err := n.store.Asked(ctx)
	if err != nil {
		return err
	}
	asked = slices.DeleteFunc(asked, func(r roster.Request) bool { return uint64(r.AskedAt.Unix()) < since }) //nolint:gosec // after 1970
	maps.DeleteFunc(b.crowded, func(id string, _ bool) bool {
		return !slices.ContainsFunc(asked, func(r roster.Request) bool { return r.ID == id })
	})
	if len(asked) == 0 {
		return nil
	}
	who, err := n.Awaited(ctx, asked)
	if err != nil {
		return err
	}
	told, err := n.store.Mailed(ctx, b.Name, waits)
	if err != nil {
		return err
	}
	if b.known, err = n.store.Addresses(ctx); err != nil {
		return err
	}
	for _, r := range asked {
		if err := b.send(ctx, n.waitsFor(ctx, b, r, who[r.ID], told[r.ID])); err != nil {
			return err
		}
	}
	return nil
}

// waitsFor is that a request waits, for those of each circle who are to be told and
// were not: of one circle not more than some, and whoever is added to it is in
// another.
func (n *Notifier) waitsFor(ctx context.Context, b *box, r roster.Request, circles [][]string, told []string) Message {
	m := Message{ID: waits, About: AboutRequests, What: "asked", Text: asks(r), Link: n.page(r.ID), Request: r.ID, Person: r.Person}
	was := map[string]bool{r.Person: true}
	for _, name := range told {
		was[name] = true
	}
	for _, circle := range circles {
		left := mostWaited
		for _, name := range circle {
			if was[name] && name != r.Person {
				left--
			}
		}
		for _, name := range circle {
			switch {
			case was[name] || b.known[name] == "":
			case left > 0:
				left--
				m.to = append(m.to, name)
			case !b.crowded[r.ID]:
				b.crowded[r.ID] = true
				n.log.WarnContext(ctx, "a request waits for more people than are told by mail", "target", b.Name, "request", r.ID, "told", mostWaited)
			}
		}
	}
	return m
}

// deliver hands in what is due, and says whether there is more.
func (n *Notifier) deliver(ctx context.Context, b *box, now time.Time) (more bool, err error) {
	open, err := n.store.OpenMails(ctx, b.Name)
	if err != nil {
		return false, err
	}
	maps.DeleteFunc(b.tries, func(id string, _ *try) bool {
		return !slices.ContainsFunc(open, func(m roster.Mail) bool { return m.ID == id })
	})
	due, err := n.due(ctx, b, open, now)
	if err != nil || len(due) == 0 {
		return false, err
	}
	to, err := b.relay()
	if err != nil {
		return false, err
	}
	to.roots = n.roots
	c, err := to.dial(ctx)
	if err != nil {
		return false, err
	}
	defer c.close()
	for i, m := range due {
		// A mail server that takes its time with each is not what ends that are near
		// are to wait for. One that took it before the first is handed that: the next
		// turn would find the same.
		if i == mailsAtOnce || i > 0 && n.clock.Now().Wall.Sub(now) >= sendWithin {
			return true, nil
		}
		if err := n.hand(ctx, b, c, m); err != nil {
			return false, err
		}
	}
	return false, nil
}

// due are those of the open mails that are handed in now, in their order. Those
// that are no news any more end.
func (n *Notifier) due(ctx context.Context, b *box, open []roster.Mail, now time.Time) (due []roster.Mail, err error) {
	known := map[string]string{}
	if len(b.tries) > 0 {
		if known, err = n.store.Addresses(ctx); err != nil {
			return nil, err
		}
	}
	for _, m := range open {
		switch t := b.tries[m.ID]; {
		case now.Sub(m.At) > news:
			n.log.WarnContext(ctx, "too late to notify", "target", b.Name, "what", m.What, "request", m.Request, "person", m.Person, "of", m.At)
			if err := n.store.EndMail(context.WithoutCancel(ctx), m.ID, now); err != nil {
				return nil, err
			}
		case t == nil || !now.Before(t.next) || known[m.Person] != t.email:
			due = append(due, m)
		}
	}
	slices.SortStableFunc(due, func(x, y roster.Mail) int { return cmp.Compare(patient(x), patient(y)) })
	return due, nil
}

// patient is 0 for a mail that waits for no other: that an end is near.
func patient(m roster.Mail) int {
	if strings.HasPrefix(m.What, nears) {
		return 0
	}
	return 1
}

// hand hands in one mail. That it is not taken is its own affair: it is tried
// again, later each time; an error is one by which no other would be taken either.
func (n *Notifier) hand(ctx context.Context, b *box, c *carrier, m roster.Mail) error {
	email, err := n.reach(ctx, m.Person)
	if err != nil {
		return err
	}
	so, err := n.stillSo(ctx, m)
	if err != nil {
		return err
	}
	now := n.clock.Now().Wall
	if email != "" && so {
		err = c.send(m, email, now)
	}
	if err == nil { // or there is nowhere, or nothing, to tell any more
		return n.store.EndMail(context.WithoutCancel(ctx), m.ID, now)
	}
	if ctx.Err() != nil {
		return err
	}
	t := b.tries[m.ID]
	if t == nil {
		t = &try{}
		b.tries[m.ID] = t
		n.log.ErrorContext(ctx, "alert: somebody's mail is not taken; it is tried again", "target", b.Name, "person", m.Person, "request", m.Request, "cause", err)
	}
	t.email, t.next = email, now.Add(retryMost<<t.times)
	t.times++
	if errors.Is(err, errAway) {
		return err
	}
	return nil
}

// stillSo reports whether it is so what a mail says: a request that it says waits
// may have been decided meanwhile.
func (n *Notifier) stillSo(ctx context.Context, m roster.Mail) (bool, error) {
	if m.What != waits {
		return true, nil
	}
	r, err := n.store.Request(ctx, m.Request)
	if errors.Is(err, roster.ErrUnknown) {
		return false, nil
	}
	return r.State == "asked", err
}
