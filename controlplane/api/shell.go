package api

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// Bounds of what can be shown to those who approve.
const (
	maxShown = 1000
	maxPaths = 8
)

// A Shell answers hosts, for people who typed sudo there. A host is believed
// as far as its own doors go: it can ask for roles on itself alone, for people
// who have a grant on it, and with a code of theirs.
type Shell struct{ *Server }

// Offer lists the roles that would let the person run what she typed: those
// that allow least come first.
func (s Shell) Offer(ctx context.Context, t roster.Typed) ([]roster.Offer, error) {
	if err := checkTyped(t); err != nil {
		return nil, err
	}
	now := s.now()
	live, err := s.Store.LiveOn(ctx, t.Person, t.Host, now)
	if err != nil {
		return nil, err
	}
	if len(live) == 0 {
		return nil, roster.Refuse(roster.Denied, "no grant of %s stands on %s: ask with `curfew request`", t.Person, t.Host)
	}
	hosts, err := s.standingHosts(ctx, []string{t.Host})
	if err != nil {
		return nil, err
	}
	offers := slices.DeleteFunc(s.Rules.Offers(t.Person, hosts, now), func(o roster.Offer) bool {
		return !slices.Contains(o.Hosts, t.Host) || !allows(o.Role, t)
	})
	slices.SortFunc(offers, func(a, b roster.Offer) int {
		return cmp.Or(cmp.Compare(width(a.Role), width(b.Role)), cmp.Compare(a.Role.Name, b.Role.Name))
	})
	return offers, nil
}

// allows says whether the role lets what was typed be run.
func allows(r grant.Role, t roster.Typed) bool {
	if t.Shell {
		return r.AnyCommand && slices.Contains(r.RunAs, t.RunAs)
	}
	return slices.ContainsFunc(t.Paths, func(path string) bool { return allowsAt(r, t, path) })
}

// allowsAt says whether it does under this name of the program.
func allowsAt(r grant.Role, t roster.Typed, path string) bool {
	return r.Allows(t.RunAs, append([]string{path}, t.Args...))
}

// width is how much a role allows.
func width(r grant.Role) int {
	if r.AnyCommand {
		return 1 << 20
	}
	return len(r.Commands)
}

// checkTyped refuses what cannot be shown to those who approve.
func checkTyped(t roster.Typed) error {
	if err := invalid(cmp.Or(grant.CheckPerson(t.Person), grant.CheckHost(t.Host), grant.CheckAccount(t.RunAs))); err != nil {
		return err
	}
	relative := func(p string) bool { return !path.IsAbs(p) || path.Clean(p) != p }
	if !t.Shell && (len(t.Paths) == 0 || len(t.Paths) > maxPaths || slices.ContainsFunc(t.Paths, relative)) {
		return roster.Refuse(roster.Invalid, "the program is named by 1 to %d absolute paths", maxPaths)
	}
	for _, p := range append(slices.Clone(t.Paths), "") {
		if o := shown(t, p); len(o.Command) > maxShown || len(o.Directory) > maxShown {
			return roster.Refuse(roster.Invalid, "what you typed is too long to be shown to those who approve: put it into a script, or ask with `curfew request`")
		}
	}
	return nil
}

// origin is what was typed as approvers read it: the program by the name by
// which the role allows it, for the others lead to the same file by the host's
// word alone.
func origin(t roster.Typed, r grant.Role) *roster.Origin {
	if t.Shell {
		return shown(t, "")
	}
	if i := slices.IndexFunc(t.Paths, func(p string) bool { return allowsAt(r, t, p) }); i >= 0 {
		return shown(t, t.Paths[i])
	}
	return shown(t, t.Paths[0])
}

// shown is what was typed, with the program at a path.
func shown(t roster.Typed, program string) *roster.Origin {
	words := append([]string{program}, t.Args...)
	if t.Shell {
		words[0] = "sudo"
	}
	o := &roster.Origin{Host: t.Host, Session: strconv.FormatUint(t.Session, 16), Command: spell(words), Directory: spell([]string{t.Directory})}
	if t.RunAs != "root" {
		o.Command += " (as " + t.RunAs + ")"
	}
	return o
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9._+@/,:=#%~{}^-]+$`)

// spell writes words so that each is told from the next, and nothing hides.
func spell(words []string) string {
	var all []string
	for _, w := range words {
		if !plainWord.MatchString(w) {
			w = strconv.QuoteToASCII(w) // letters that are blank or run from the right hide others
		}
		all = append(all, w)
	}
	return strings.Join(all, " ")
}

// typedOn says where a code was typed that was not typed on a device.
func typedOn(o *roster.Origin) string {
	if o == nil {
		return ""
	}
	return fmt.Sprintf(", typed in session %s on %s for: %s", o.Session, o.Host, o.Command)
}

// keyOn keeps the keys of hosts apart from each other, and from those of
// people's devices.
func keyOn(host, key string) string { return "host " + host + " " + key }

// Ask makes the request, or finds it by its key, and tells how it stands until
// it is decided.
func (s Shell) Ask(ctx context.Context, w roster.Wish, tell func(roster.Told) error) error {
	r, err := s.make(ctx, w)
	if err != nil {
		return s.told(err)
	}
	last := roster.Told{}
	for {
		changed := s.Store.Changed() // before the look, so that nothing falls in between
		if r, err = s.Store.Request(ctx, r.ID); err != nil {
			return s.told(err)
		}
		now, err := s.stands(ctx, r)
		if err != nil {
			return s.told(err)
		}
		if last.ID == "" || last.State != now.State || last.WaitsFor != now.WaitsFor || len(last.Approved) != len(now.Approved) {
			if err := tell(now); err != nil {
				return err
			}
		}
		last = now
		if r.State != stateAsked {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.Stop:
			return errStopping
		case <-changed:
		case <-s.Clock.After(lookAgain):
		}
	}
}

func (s Shell) make(ctx context.Context, w roster.Wish) (roster.Request, error) {
	r := roster.Request{
		Asked:  roster.Asked{Role: w.Role, Hosts: []string{w.Host}, Duration: w.Duration, Reason: w.Reason, Ticket: w.Ticket},
		Person: w.Person, Key: keyOn(w.Host, w.Key),
	}
	if err := checkTyped(w.Typed); err != nil {
		return r, err
	}
	if w.Key == "" {
		return r, roster.Refuse(roster.Invalid, "a request from a shell has a key")
	}
	// What was made already goes on, whatever has changed since.
	was, err := s.Store.RequestOf(ctx, r.Person, r.Key)
	if err == nil || !is(err, roster.ErrUnknown) {
		if r.Origin = origin(w.Typed, was.Resolved); err == nil && !was.SameAs(r.Asked) {
			err = errKey
		}
		return was, err
	}
	offers, err := s.Offer(ctx, w.Typed)
	if err != nil {
		return r, err
	}
	i := slices.IndexFunc(offers, func(of roster.Offer) bool { return of.Role.Name == w.Role })
	if i < 0 {
		return r, roster.Refuse(roster.Denied, "you may not ask for role %.64q here, or it does not allow what you typed", w.Role)
	}
	p, err := s.Store.Person(ctx, w.Person)
	if err != nil {
		return r, err
	}
	r.FullName, r.Factor, r.Origin = p.FullName, factorCode, origin(w.Typed, offers[i].Role)
	return s.ask(ctx, r, func(ctx context.Context) error { return s.spendAt(ctx, w, r.Origin) })
}

// spendAt uses up a code that was typed on a host. One that is wrong is a
// guess, and stands in the record.
func (s Shell) spendAt(ctx context.Context, w roster.Wish, o *roster.Origin) error {
	err := s.Desk.SpendCodeAt(ctx, w.Host, w.Person, w.Code)
	if err != nil {
		s.guessed(ctx, roster.Act{By: w.Person, At: s.now()}, "a wrong code of "+w.Person+"'s second factor"+typedOn(o), err)
	}
	return err
}

// told is the error as the person may read it.
func (s Shell) told(err error) error {
	if is(err, roster.ErrUnknown) {
		return errNoRequest
	}
	return err
}

// stands is how a request stands.
func (s Shell) stands(ctx context.Context, r roster.Request) (roster.Told, error) {
	t := roster.Told{ID: r.ID, State: r.State, Lapses: r.LapsesAt, By: r.DecidedBy, Note: r.DecisionNote}
	for _, a := range r.Approvals {
		t.Approved = append(t.Approved, a.Person)
	}
	if r.Grant != nil {
		t.Grant = r.Grant.ID
	}
	if r.State != stateAsked {
		return t, nil
	}
	sc, err := s.look(ctx, s.now())
	if err != nil {
		return t, err
	}
	if sc.hosts, err = s.standingHosts(ctx, r.Hosts); err != nil {
		return t, err
	}
	st, ok := s.standing(r, sc)
	switch {
	case !ok:
		t.WaitsFor = st.Nobody
	case unsigned(r):
		t.WaitsFor = s.waitsToBeSigned(r)
	default:
		t.WaitsFor = st.String()
	}
	return t, nil
}

// standingHosts are those of the hosts that are in the fleet: all that a
// waiting shell has looked up, again and again.
func (s Shell) standingHosts(ctx context.Context, names []string) ([]roster.Host, error) {
	var all []roster.Host
	for _, name := range names {
		h, err := s.Store.Host(ctx, name)
		if err != nil && !is(err, roster.ErrUnknown) {
			return nil, err
		}
		if err == nil && !h.Decommissioned {
			all = append(all, h)
		}
	}
	return all, nil
}

// TakeBack withdraws the request that the host made with the key, and says
// how it stands then: somebody may have been faster.
func (s Shell) TakeBack(ctx context.Context, host, person, key string) (roster.Told, error) {
	r, err := s.Store.RequestOf(ctx, person, keyOn(host, key))
	if err != nil {
		return roster.Told{}, s.told(err)
	}
	now := s.now()
	r, err = s.Store.Change(ctx, r.ID, now, func(r roster.Request) (roster.Change, error) {
		if r.State != stateAsked {
			return roster.Change{}, nil
		}
		const why = "given up in the shell"
		return roster.Change{State: stateWithdrawn, By: r.Person, Note: why, Steps: []roster.Decision{{At: now, What: stateWithdrawn, Person: r.Person, Text: why}}}, nil
	})
	if err != nil {
		return roster.Told{}, err
	}
	return s.stands(ctx, r)
}
