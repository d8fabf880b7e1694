package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// What messages are about.
const (
	AboutRequests = "requests"
	AboutAlerts   = "alerts"
)

// alerts are entries that somebody has to look at.
var alerts = map[ledger.Kind]string{
	ledger.SetRefused: "a host did not take what it was to hold",
	ledger.Drift:      "somebody changed what Curfew put on a host",
	ledger.Gap:        "the record of a host has a gap",
	ledger.Privilege:  "privilege was gained without a grant",
	ledger.Witnessed:  "a witness of the log",
}

// message is what there is to say of an event, if anything.
func (n *Notifier) message(ctx context.Context, v roster.Event) (Message, bool, error) {
	e := v.Entry
	m := Message{
		ID: fmt.Sprintf("event-%d", v.ID), At: e.At, What: e.Kind.String(), Grant: e.Grant, Person: e.Person, Request: e.Request, Host: v.Host,
	}
	if e.Kind == ledger.Decision {
		return n.decision(ctx, m, e)
	}
	if lent := e.Kind == ledger.Admin && (e.Step == roster.LentStep || e.Step == roster.TakenStep); lent {
		m.About, m.What, m.Text, m.Person = AboutRequests, e.Step, plain(e.Text), e.Object // whom it concerns
		var err error
		m.to, err = n.lent(ctx, e)
		return m, err == nil, err
	}
	what, ok := alerts[e.Kind]
	m.About, m.Text = AboutAlerts, fmt.Sprintf("%s: %s: %s", cmp.Or(v.Host, "the control plane"), what, plain(e.Text))
	if e.Kind == ledger.Witnessed && v.Host == "" {
		m.Text = fmt.Sprintf("%s, %s, %s: %s", what, plain(e.Object), plain(e.Step), plain(e.Text))
	}
	if e.Person != "" {
		m.Text += " (" + plain(e.Person) + ")"
	}
	return m, ok, nil
}

// lent is whom it concerns that somebody may approve in another's place, or may no
// longer: herself, and the one who is away and takes it that somebody may.
func (n *Notifier) lent(ctx context.Context, e ledger.Entry) ([]string, error) {
	to := others(e.Object, e.Person)
	if e.Step != roster.TakenStep {
		return to, nil
	}
	ended, err := n.store.EndedDelegations(ctx, e.Object, e.At)
	for _, d := range ended {
		if d.IsTaken(e.Text) && d.Away != e.Person && !slices.Contains(to, d.Away) {
			to = append(to, d.Away)
		}
	}
	return to, err
}

// decision tells of a step in a request's life.
func (n *Notifier) decision(ctx context.Context, m Message, e ledger.Entry) (Message, bool, error) {
	r, err := n.store.Request(ctx, e.Request)
	if errors.Is(err, roster.ErrUnknown) {
		return m, false, nil // of a request that is no more
	}
	if err != nil {
		return m, false, err
	}
	m.About, m.What, m.Link = AboutRequests, e.Step, n.page(r.ID)
	who := fmt.Sprintf("%s's request for %s on %s", plain(r.Person), plain(r.Role), plain(roster.Some(r.Hosts, ", ")))
	why := ""
	if e.Text != "" {
		why = ": " + plain(e.Text)
	}
	switch e.Step {
	case "asked":
		if r.Needed == 0 {
			return m, false, nil // nobody is waited for
		}
		m.Text = asks(r)
	case roster.InPlaceStep:
		m.Text = fmt.Sprintf("%s %s: %s", plain(e.Person), plain(e.Text), who)
	case roster.EscalatedStep:
		m.Text = who + " was not decided in time and goes on" + why
	case "approved":
		m.Text, m.to = who+" was approved by "+plain(e.Person)+why, others(r.Person, e.Person)
	case "denied", "withdrawn", "lapsed", "revoked":
		by := ""
		if e.Person != "" {
			by = " by " + plain(e.Person)
		}
		m.Text, m.to = who+" was "+e.Step+by+why, others(r.Person, e.Person)
		if e.Step == "lapsed" {
			m.Text = who + " has lapsed" + why
		}
	case roster.RemarkStep:
		m.Text, m.own = plain(e.Person)+" says of "+who+why, true
		if m.to, err = n.listeners(ctx, r, e.Person); err != nil {
			return m, false, err
		}
	case roster.UnconfirmedStep:
		m.About, m.Text = AboutAlerts, who+" has ended, and its host has not confirmed that"+why
	default:
		return m, false, nil
	}
	return m, true, nil
}

// listeners are who is to hear what somebody says on a request: who asked, or else
// who said something before her.
func (n *Notifier) listeners(ctx context.Context, r roster.Request, by string) ([]string, error) {
	if by != r.Person {
		return []string{r.Person}, nil
	}
	steps, err := n.store.Decisions(ctx, r.ID)
	var all []string
	for _, d := range steps {
		if d.What == roster.RemarkStep && d.Person != by && !slices.Contains(all, d.Person) {
			all = append(all, d.Person)
		}
	}
	return all, err
}

// asks is a request that waits, as those read it whose word it waits for.
func asks(r roster.Request) string {
	from := ""
	if !r.Start.IsZero() {
		from = " from " + r.Start.UTC().Format("2006-01-02 15:04 MST")
	}
	text := fmt.Sprintf("%s asks for %s on %s for %v%s: %s", plain(r.Person), plain(r.Role), plain(roster.Some(r.Hosts, ", ")), r.Duration, from, plain(r.Reason))
	if r.Proof != nil {
		text += "; it has no proof of its own, but an earlier one"
	}
	for _, d := range r.Doubts {
		text += "; more have to approve, because " + plain(d.Because)
	}
	return text
}

// others is whom something concerns, unless she did it herself.
func others(whom, by string) []string {
	if whom == by {
		return nil
	}
	return []string{whom}
}

// nears is how ids of warnings begin.
const nears = "end-"

// near are the warnings of a grant's end that are due after one time and up to
// another, in seconds. A grant that is shorter than a warning has none.
func (n *Notifier) near(r roster.Request, after, upTo uint64) []Message {
	if r.Grant == nil || !r.EndedAt.IsZero() {
		return nil
	}
	var due []Message
	for _, before := range warnings {
		at := r.Grant.NotAfter.Add(-before)
		if s := uint64(at.Unix()); at.Before(r.Grant.NotBefore) || s <= after || s > upTo { //nolint:gosec // after 1970
			continue
		}
		due = append(due, Message{
			ID: fmt.Sprintf("%s%s-%v", nears, r.Grant.ID, before), At: at, About: AboutRequests, What: "ends",
			Text: fmt.Sprintf("%s's grant %s as %s on %s ends in %d minutes, and with it what runs there; to go on: curfew extend %s --for 1h --why REASON",
				plain(r.Person), r.Grant.ID, plain(r.Role), plain(roster.Some(r.Hosts, ", ")), int(before.Minutes()), r.Grant.ID),
			Link: n.page(r.ID), Request: r.ID, Grant: r.Grant.ID, Person: r.Person, to: []string{r.Person},
		})
	}
	return due
}

// page is a request's, if there are pages.
func (n *Notifier) page(request string) string {
	if n.pages == "" {
		return ""
	}
	return n.pages + "/requests/" + request
}

// longest is how much of one text is sent.
const longest = 500

// harmless takes their meaning from what chats make calls and links of.
var harmless = strings.NewReplacer("@", "@\u200b", "](", "]\u200b(")

// plain is text of others' that stays on its line.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if runes := []rune(s); len(runes) > longest {
		s = string(runes[:longest]) + "…"
	}
	return harmless.Replace(s)
}
