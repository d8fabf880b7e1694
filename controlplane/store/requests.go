package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

const requestColumns = `r.id, r.person, p.full_name, r.key, r.state, r.body, r.digest, r.asked_at, r.lapses_at, r.decided_by, r.decision_note, r.word,
	g.payload, coalesce(g.issued_at, 0), coalesce(g.ended_at, 0)
	FROM requests r JOIN people p ON p.name = r.person LEFT JOIN grants g ON g.request = r.id `

func scanRequest(row scanner) (roster.Request, error) {
	var r roster.Request
	var b, payload []byte
	err := row.Scan(&r.ID, &r.Person, &r.FullName, &r.Key, &r.State, &b, &r.Digest, instant{&r.AskedAt}, instant{&r.LapsesAt},
		&r.DecidedBy, &r.DecisionNote, &r.Word, &payload, instant{&r.IssuedAt}, instant{&r.EndedAt})
	if err != nil {
		return r, known(err)
	}
	if err := json.Unmarshal(b, &r.Asked); err != nil {
		return r, err
	}
	if len(payload) == 0 {
		return r, nil
	}
	g, err := grant.Parse(payload)
	r.Grant = &g
	return r, err
}

// given is an approval of a request's.
type given struct {
	request string
	roster.Approval
}

func scanGiven(row scanner) (given, error) {
	var a given
	var seconds int64
	err := row.Scan(&a.request, &a.Person, &a.Factor, instant{&a.At}, &a.Note, &seconds, inJSON{&a.Hosts}, &a.Word, &a.InPlaceOf)
	a.Duration = time.Duration(seconds) * time.Second
	return a, err
}

// someRequests returns those that the rest of the query names, whole.
func someRequests(ctx context.Context, q querier, rest string, args ...any) ([]roster.Request, error) {
	all, err := list(ctx, q, scanRequest, `SELECT `+requestColumns+rest, args...)
	if err != nil {
		return nil, err
	}
	for some := range slices.Chunk(all, approvedAtOnce) {
		if err := withApprovals(ctx, q, some); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// approvedAtOnce is of how many requests the approvals are asked for together:
// each question costs a round trip on PostgreSQL.
const approvedAtOnce = 500

// withApprovals puts the requests' approvals to them.
func withApprovals(ctx context.Context, q querier, some []roster.Request) error {
	ids, of := make([]string, len(some)), make(map[string]*roster.Request, len(some))
	for i := range some {
		ids[i], of[some[i].ID] = some[i].ID, &some[i]
	}
	all, err := list(ctx, q, scanGiven, `SELECT request, person, factor, at, note, seconds, hosts, word, in_place_of FROM approvals
		WHERE request IN `+among(ids)+` ORDER BY at, person`, args(ids)...)
	for _, a := range all {
		of[a.request].Approvals = append(of[a.request].Approvals, a.Approval)
	}
	return err
}

func oneRequest(ctx context.Context, q querier, id string) (roster.Request, error) {
	all, err := someRequests(ctx, q, `WHERE r.id = ? OR g.id = ?`, id, id)
	if err == nil && len(all) == 0 {
		err = roster.ErrUnknown
	}
	if err != nil {
		return roster.Request{}, fmt.Errorf("request: %w", err)
	}
	return all[0], nil
}

// Request returns the request with the id, or whose grant has it.
func (s *Store) Request(ctx context.Context, id string) (roster.Request, error) {
	return oneRequest(ctx, s.read, id)
}

// RequestOf returns the person's request with the key of her choice.
func (s *Store) RequestOf(ctx context.Context, person, key string) (roster.Request, error) {
	all, err := someRequests(ctx, s.read, `WHERE r.person = ? AND r.key = ? AND r.key <> ''`, person, key)
	if err == nil && len(all) == 0 {
		err = roster.ErrUnknown
	}
	if err != nil {
		return roster.Request{}, err
	}
	return all[0], nil
}

// Requests returns requests, the newest first: all, or only those whose life
// is not over.
func (s *Store) Requests(ctx context.Context, all bool, limit int) ([]roster.Request, error) {
	return someRequests(ctx, s.read, `WHERE ? = 1 OR r.state IN ('asked', 'issued') ORDER BY r.asked_at DESC, r.id LIMIT ?`, all, limit)
}

// LiveOn returns the person's requests whose grants stand on the host, the
// one that ends last first: not those of which the host has signed that it ended
// them, as by a clock that was ahead, and which it did not install again.
func (s *Store) LiveOn(ctx context.Context, person, host string, at time.Time) ([]roster.Request, error) {
	return someRequests(ctx, s.read, `JOIN request_hosts rh ON rh.request = r.id JOIN hosts h ON h.name = rh.host
		WHERE r.person = ? AND rh.host = ? AND h.decommissioned = 0 AND g.ended_at = 0 AND g.issued_at >= h.fresh_at AND g.not_before <= ? AND g.not_after > ?
			AND NOT `+strings.ReplaceAll(confirmed, "r.host", "rh.host")+`
		ORDER BY g.not_after DESC`, person, host, ns(at), ns(at))
}

// Due returns the ids of the requests whose life has to move on by itself.
func (s *Store) Due(ctx context.Context, at time.Time) ([]string, error) {
	return list(ctx, s.read, scanText, `SELECT id FROM requests WHERE state = 'asked' AND lapses_at <= ?
		UNION ALL SELECT request FROM grants WHERE ended_at = 0 AND drained <= ?`, ns(at), ns(at))
}

// Asked returns the requests that wait to be decided, the oldest first.
func (s *Store) Asked(ctx context.Context) ([]roster.Request, error) {
	return someRequests(ctx, s.read, `WHERE r.state = 'asked' ORDER BY r.asked_at, r.id`)
}

// Escalate keeps the step that f makes of a request that waits, unless one was
// kept since the time that f says: each is told once, whichever server sees it
// first.
func (s *Store) Escalate(ctx context.Context, id string, f func(roster.Request) (since time.Time, step *roster.Decision)) error {
	return s.write(ctx, func(t *tx) error {
		r, err := oneRequest(ctx, t, id)
		if err != nil {
			return err
		}
		since, step := f(r)
		if step == nil {
			return nil
		}
		var told bool
		err = t.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM decisions WHERE request = ? AND what = ? AND at >= ?)`, id, step.What, ns(since)).Scan(&told)
		if err != nil || told {
			return err
		}
		return t.steps(ctx, r, roster.Change{Steps: []roster.Decision{*step}})
	})
}

// Ask keeps a new request, and what becomes of it at once: nothing, or its
// grant. If the person asked with the same key before, it returns that
// request, or [roster.ErrExists] if it asked for something else. One that stands
// on an earlier proof is kept only if that counts still, or [roster.ErrUsed].
func (s *Store) Ask(ctx context.Context, r roster.Request, at time.Time, c roster.Change) (roster.Request, error) {
	err := s.write(ctx, func(t *tx) error {
		was, err := askedBefore(ctx, t, r)
		if err != nil || was != nil {
			if was != nil {
				r = *was
			}
			return err
		}
		if err := errors.Join(t.stands(ctx, r), insertRequest(ctx, t, r, at)); err != nil {
			return err
		}
		if err := s.apply(ctx, t, r, at, c); err != nil {
			return err
		}
		r, err = oneRequest(ctx, t, r.ID)
		return err
	})
	return r, err
}

// askedBefore returns the request that the person made with the same key.
func askedBefore(ctx context.Context, t *tx, r roster.Request) (*roster.Request, error) {
	all, err := someRequests(ctx, t, `WHERE r.person = ? AND r.key = ? AND r.key <> ''`, r.Person, r.Key)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	if !all[0].SameAs(r.Asked) {
		return nil, fmt.Errorf("request with this key: %w", roster.ErrExists)
	}
	return &all[0], nil
}

func insertRequest(ctx context.Context, t *tx, r roster.Request, at time.Time) error {
	if err := errors.Join(enabled(ctx, t, r.Person), goesOn(ctx, t, r)); err != nil {
		return err
	}
	err := t.run(ctx, `INSERT INTO requests (id, person, key, state, body, digest, asked_at, lapses_at, changed_at, network) VALUES (?, ?, ?, 'asked', ?, ?, ?, ?, ?, ?)`,
		r.ID, r.Person, r.Key, object(r.Asked), r.Digest, ns(r.AskedAt), ns(r.LapsesAt), ns(at), roster.NetworkOf(r.Source))
	var rows []any
	for _, h := range r.Hosts {
		rows = append(rows, r.ID, h)
	}
	return errors.Join(err, t.insert(ctx, "request_hosts", 2, rows))
}

// Change changes the request as f says, which sees it as it is and nobody
// changes meanwhile. The decision, the grant and the sets of its hosts are
// there together, or not at all.
func (s *Store) Change(ctx context.Context, id string, at time.Time, f func(roster.Request) (roster.Change, error)) (roster.Request, error) {
	var r roster.Request
	err := s.write(ctx, func(t *tx) error {
		var err error
		if r, err = oneRequest(ctx, t, id); err != nil {
			return err
		}
		c, err := f(r)
		if err != nil {
			return err
		}
		if err := s.apply(ctx, t, r, at, c); err != nil {
			return err
		}
		r, err = oneRequest(ctx, t, r.ID)
		return err
	})
	return r, err
}

func (s *Store) apply(ctx context.Context, t *tx, r roster.Request, at time.Time, c roster.Change) error {
	if c.Approval != nil {
		a := c.Approval
		if err := errors.Join(enabled(ctx, t, a.Person), standIn(ctx, t, *a, at)); err != nil {
			return err
		}
		err := t.run(ctx, `INSERT INTO approvals (request, person, factor, at, note, seconds, hosts, word, in_place_of) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			r.ID, a.Person, a.Factor, ns(a.At), a.Note, int64(a.Duration/time.Second), object(a.Hosts), a.Word, a.InPlaceOf)
		if err != nil {
			return err
		}
	}
	if err := apart(ctx, t, r, c.Apart, at); err != nil {
		return err
	}
	if len(c.Word) > 0 {
		if err := t.exec(ctx, `UPDATE requests SET word = ?, changed_at = ? WHERE id = ? AND word IS NULL`, c.Word, ns(at), r.ID); err != nil {
			return err
		}
	}
	if c.Grant != nil {
		if err := errors.Join(goesOn(ctx, t, r), standIns(ctx, t, r, *c.Grant, at), insertGrant(ctx, t, *c.Grant, at), fewer(ctx, t, r, *c.Grant)); err != nil {
			return err
		}
	}
	if err := t.steps(ctx, r, c); err != nil {
		return err
	}
	if c.State == "" {
		return nil
	}
	err := t.exec(ctx, `UPDATE requests SET state = ?, decided_by = ?, decision_note = ?, changed_at = ? WHERE id = ?`, c.State, c.By, c.Note, ns(at), r.ID)
	if err != nil || r.Grant == nil && c.Grant == nil {
		return err
	}
	if c.State == revoked {
		if err := s.endExtensions(ctx, t, r, at, c); err != nil {
			return err
		}
	}
	return s.tellHosts(ctx, t, r.ID, c.Grant == nil, at)
}

// fewer takes the hosts off the request that its grant does not name.
func fewer(ctx context.Context, t *tx, r roster.Request, g grant.Grant) error {
	var errs []error
	for _, h := range r.Hosts {
		if !g.On(h) {
			errs = append(errs, t.exec(ctx, `DELETE FROM request_hosts WHERE request = ? AND host = ?`, r.ID, h))
		}
	}
	return errors.Join(errs...)
}

// steps keeps the change's steps, for the request's story and for the record.
func (t *tx) steps(ctx context.Context, r roster.Request, c roster.Change) error {
	for _, d := range c.Steps {
		err := t.run(ctx, `INSERT INTO decisions (request, at, what, person, host, text) VALUES (?, ?, ?, ?, ?, ?)`, r.ID, ns(d.At), d.What, d.Person, d.Host, d.Text)
		if err == nil {
			err = t.decided(ctx, r, d, c)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

const revoked = "revoked"

// apart refuses what may not be held besides a grant that the person has. It
// looks where the grant is kept: of two that are given at once, one comes
// second.
func apart(ctx context.Context, t *tx, r roster.Request, roles []string, at time.Time) error {
	if len(roles) == 0 {
		return nil
	}
	held, err := list(ctx, t, scanText, `SELECT role FROM grants WHERE person = ? AND ended_at = 0 AND drained > ?`, r.Person, ns(at))
	for _, role := range held {
		if slices.Contains(roles, role) {
			err = errors.Join(err, fmt.Errorf("role %s: %w", role, roster.ErrApart))
		}
	}
	return err
}

// goesOn refuses a request that goes on from a grant which was revoked.
func goesOn(ctx context.Context, t *tx, r roster.Request) error {
	if r.Extends == "" {
		return nil
	}
	old, err := oneRequest(ctx, t, r.Extends)
	if err == nil && old.State == revoked {
		err = fmt.Errorf("grant %s: %w", r.Extends, roster.ErrRevoked)
	}
	return err
}

// endExtensions ends what goes on from a grant that is being revoked: those
// that stand, and those that were only asked for. Who revokes a grant wants
// its person out.
func (s *Store) endExtensions(ctx context.Context, t *tx, r roster.Request, at time.Time, c roster.Change) error {
	all, err := someRequests(ctx, t, `WHERE r.person = ? AND r.state IN ('asked', 'issued')`, r.Person)
	for _, o := range all {
		if o.Extends != r.Grant.ID {
			continue
		}
		with := roster.Change{State: "denied", By: c.By, Note: strings.TrimSpace("with " + r.Grant.ID + ", which it goes on from. " + c.Note)}
		if o.Grant != nil {
			with.State = revoked
		}
		with.Steps = []roster.Decision{{At: at, What: with.State, Person: with.By, Text: with.Note}}
		err = errors.Join(err, s.apply(ctx, t, o, at, with))
	}
	return err
}

// tellHosts signs new sets for the hosts of a request whose grant has come, or
// has ended.
func (s *Store) tellHosts(ctx context.Context, t *tx, id string, ended bool, at time.Time) error {
	if ended {
		if err := t.exec(ctx, `UPDATE grants SET ended_at = ? WHERE request = ? AND ended_at = 0`, ns(at), id); err != nil {
			return err
		}
	}
	hosts, err := list(ctx, t, scanText, `SELECT h.name FROM hosts h JOIN request_hosts r ON r.host = h.name WHERE r.request = ? AND h.decommissioned = 0`, id)
	if err != nil {
		return err
	}
	return s.rebuild(ctx, t, hosts, at)
}

func enabled(ctx context.Context, q querier, name string) error {
	var disabled bool
	err := known(q.QueryRowContext(ctx, `SELECT disabled FROM people WHERE name = ?`, name).Scan(&disabled))
	switch {
	case err != nil:
		return fmt.Errorf("person: %w", err)
	case disabled:
		return fmt.Errorf("person %s: %w", name, roster.ErrDisabled)
	}
	return nil
}

func insertGrant(ctx context.Context, t *tx, g grant.Grant, at time.Time) error {
	if err := g.Check(); err != nil {
		return err
	}
	if t.signer == nil {
		return errNoSigner
	}
	if err := enabled(ctx, t, g.Person.Name); err != nil {
		return err
	}
	if err := inFleet(ctx, t, g.Hosts); err != nil {
		return err
	}
	return t.run(ctx, `INSERT INTO grants (id, request, person, role, not_before, not_after, drained, payload, envelope, issued_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		g.ID, g.Request, g.Person.Name, g.Role.Name, ns(g.NotBefore), ns(g.NotAfter), ns(g.Drained()), g.Bytes(), t.signer.SignGrant(g), ns(at))
}

// inFleet refuses a host that is not in the fleet, or not any more.
func inFleet(ctx context.Context, t *tx, names []string) error {
	for some := range slices.Chunk(names, setsAtOnce) {
		all, err := list(ctx, t, scanPair[bool], `SELECT name, decommissioned FROM hosts WHERE name IN `+among(some), args(some)...)
		if err != nil {
			return err
		}
		gone := map[string]bool{}
		for _, p := range all {
			gone[p.host] = p.of
		}
		for _, name := range some {
			left, known := gone[name]
			switch {
			case !known:
				return fmt.Errorf("host %s: %w", name, roster.ErrUnknown)
			case left:
				return fmt.Errorf("host %s: %w", name, roster.ErrDecommissioned)
			}
		}
	}
	return nil
}

// endAllOf ends every request and grant of a person who was disabled.
func (s *Store) endAllOf(ctx context.Context, t *tx, name string, a roster.Act) error {
	return s.endOpen(ctx, t, query{`WHERE r.person = ? AND r.state IN ('asked', 'issued')`, []any{name}}, a, "the account was disabled")
}

// Decisions returns the steps of the request's life, in order.
func (s *Store) Decisions(ctx context.Context, id string) ([]roster.Decision, error) {
	return list(ctx, s.read, func(r scanner) (roster.Decision, error) {
		var d roster.Decision
		err := r.Scan(instant{&d.At}, &d.What, &d.Person, &d.Host, &d.Text)
		return d, err
	}, `SELECT at, what, person, host, text FROM decisions WHERE request = ? ORDER BY id`, id)
}

// SentTo says, for each host of the request's grant that took a set with it,
// when it did.
func (s *Store) SentTo(ctx context.Context, id string) ([]roster.Decision, error) {
	return list(ctx, s.read, func(r scanner) (roster.Decision, error) {
		d := roster.Decision{What: "sent"}
		err := r.Scan(&d.Host, instant{&d.At})
		return d, err
	}, `SELECT s.host, min(s.applied_at) FROM host_sets s JOIN request_hosts r ON r.host = s.host JOIN grants g ON g.request = r.request
		WHERE r.request = ? AND s.at >= g.issued_at AND s.applied_at > 0 AND (g.ended_at = 0 OR s.applied_at < g.ended_at)
		GROUP BY s.host ORDER BY s.host`, id)
}

// PassedBy returns the hosts of the request that hold a set which was made
// after its grant's end: what they did not tell of it then, did not happen.
func (s *Store) PassedBy(ctx context.Context, id string) ([]string, error) {
	return list(ctx, s.read, scanText, `SELECT DISTINCT s.host FROM host_sets s JOIN request_hosts r ON r.host = s.host
		JOIN grants g ON g.request = r.request
		WHERE r.request = ? AND g.ended_at > 0 AND s.at >= g.ended_at AND s.applied_at > 0`, id)
}
