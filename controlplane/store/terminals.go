package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// ErrStatement refuses what a host says of a recording. ErrErased means that it
// said so before, and that the recording is deleted, or about to be.
var (
	ErrStatement = errors.New("no statement of this host on a terminal of its")
	ErrErased    = errors.New("the recording is deleted")
)

// Statement opens what the host signed of a recording, if it is about that
// host and one of its grants.
func (s *Store) Statement(ctx context.Context, name string, envelope []byte) (ledger.Segment, error) {
	h, err := host(ctx, s.read, name)
	if err != nil {
		return ledger.Segment{}, err
	}
	v, err := ledger.OpenSegment(envelope, h.ReceiptKey)
	if err == nil && (v.Fleet != s.fleet || v.Host != name || !terminalName(v.Terminal)) {
		err = fmt.Errorf("it is about %s on %s", v.Terminal, v.Host)
	}
	if err != nil {
		return v, fmt.Errorf("%w: %w", ErrStatement, err)
	}
	var own bool
	err = s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM grants g JOIN request_hosts r ON r.request = g.request
		WHERE g.id = ? AND r.host = ? AND g.person = ?)`, v.Grant, name, v.Person).Scan(&own)
	if err == nil && !own {
		err = fmt.Errorf("%w: grant %s is none of %s on it", ErrStatement, v.Grant, v.Person)
	}
	return v, err
}

// terminalName reports whether a recording is called as ours are: session in
// hex, a dash, and what tells it from others of the session.
func terminalName(s string) bool {
	if len(s) < 18 || len(s) > 40 || s[16] != '-' {
		return false
	}
	for i, c := range s {
		if i != 16 && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Taken is what the files of a host's recordings take, but for those that were
// deleted, and whether the segment is among them.
func (s *Store) Taken(ctx context.Context, v ledger.Segment) (taken int64, kept bool, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT CAST(coalesce(sum(CASE WHEN stored > 0 THEN stored ELSE bytes END), 0) AS BIGINT),
		EXISTS (SELECT 1 FROM terminal_segments WHERE host = ? AND terminal = ? AND number = ?) FROM terminals WHERE host = ? AND erased < 2`,
		v.Host, v.Terminal, int64(min(v.Number, 1<<62)), v.Host).Scan(&taken, &kept)
	return taken, kept, err
}

// mostLost bounds what a recording is said to lack, which a host can sign any
// number for: one that no row holds would keep all recordings from being listed.
const mostLost = 1 << 61

// KeepSegment keeps what the host signed of a segment, whose data is kept
// already, in a file of a size, if that is there still: it may have been another
// recording's, whose time is over. The same again changes nothing, or is
// [ErrErased]; another with its number is refused.
func (s *Store) KeepSegment(ctx context.Context, v ledger.Segment, envelope []byte, stored int, there func() error) error {
	return s.write(ctx, func(t *tx) error {
		if err := there(); err != nil {
			return err
		}
		h, err := host(ctx, t, v.Host)
		if err != nil {
			return err
		}
		var known uint64
		err = t.QueryRowContext(ctx, `SELECT coalesce(max(number), 0) FROM terminal_segments WHERE host = ? AND terminal = ?`, v.Host, v.Terminal).Scan(&known)
		if err != nil {
			return err
		}
		if v.Number <= known {
			var was []byte
			err := t.QueryRowContext(ctx, `SELECT statement FROM terminal_segments WHERE host = ? AND terminal = ? AND number = ?`,
				v.Host, v.Terminal, int64(v.Number)).Scan(&was) //nolint:gosec // segments are counted from one
			if err == nil && string(was) == string(envelope) { // sent twice, and its file with it
				return unlessErased(ctx, t, v)
			}
		}
		if v.Number != known+1 {
			return fmt.Errorf("%w: segment %d of %s after %d", ErrStatement, v.Number, v.Terminal, known)
		}
		session := sessionHex(v.Session)
		var ended int64
		if v.End != "" {
			ended = ns(v.To)
		}
		err = t.run(ctx, `INSERT INTO terminals (host, id, session, grant_id, person, started, seen) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			v.Host, v.Terminal, session, v.Grant, v.Person, ns(v.From), ns(v.To))
		if err == nil {
			err = t.run(ctx, `INSERT INTO terminal_segments VALUES (?, ?, ?, ?, ?, ?)`,
				v.Host, v.Terminal, int64(v.Number), blob(v.Digest), envelope, []byte(h.ReceiptKey)) //nolint:gosec // as above
		}
		if err == nil {
			err = t.exec(ctx, `UPDATE terminals SET seen = ?, ended = ?, why = ?, segments = segments + ?, bytes = bytes + ?, lost = CASE WHEN lost < ? THEN lost + ? ELSE lost END, stored = stored + ?,
				erased = CASE WHEN erased > 0 THEN 1 ELSE 0 END WHERE host = ? AND id = ? AND grant_id = ?`,
				ns(v.To), ended, v.End, min(len(v.Digest), 1), int64(v.Size), mostLost, int64(min(v.Lost, mostLost)), stored, v.Host, v.Terminal, v.Grant) //nolint:gosec // bounded, the size by what a host can send
		}
		return err
	})
}

func unlessErased(ctx context.Context, t *tx, v ledger.Segment) error {
	var erased bool
	err := t.QueryRowContext(ctx, `SELECT erased > 0 FROM terminals WHERE host = ? AND id = ?`, v.Host, v.Terminal).Scan(&erased)
	if err == nil && erased {
		return ErrErased
	}
	return err
}

func sessionHex(id uint64) string { return fmt.Sprintf("%016x", id) }

// Terminals returns the recordings that are searched for, the newest first.
func (s *Store) Terminals(ctx context.Context, q roster.TerminalSearch) ([]roster.Terminal, error) {
	w := where{}
	w.and(`t.started >= ?`, ns(q.Since))
	if q.ID != "" {
		w.and(`(t.id = ? OR t.session = ?)`, q.ID, q.ID)
	}
	w.text(`t.grant_id = ?`, q.Grant)
	w.text(`t.person = ?`, q.Person)
	w.text(`t.host = ?`, q.Host)
	if !q.Until.IsZero() {
		w.and(`t.started < ?`, ns(q.Until))
	}
	if q.For != "" {
		w.and(`t.grant_id IN (SELECT id FROM grants WHERE person = ? UNION
			SELECT g.id FROM grants g JOIN approvals a ON a.request = g.request WHERE a.person = ?)`, q.For, q.For)
	}
	return list(ctx, s.read, scanTerminal, `SELECT t.host, t.id, t.session, t.grant_id, t.person, g.role, t.started, t.seen, t.ended, t.why, t.segments, t.bytes, t.lost, t.erased
		FROM terminals t JOIN grants g ON g.id = t.grant_id WHERE `+w.String()+` ORDER BY t.started DESC, t.id LIMIT ?`, append(w.args, q.Limit)...)
}

func scanTerminal(r scanner) (roster.Terminal, error) {
	var v roster.Terminal
	var session string
	var erased int
	err := r.Scan(&v.Host, &v.ID, &session, &v.Grant, &v.Person, &v.Role, instant{&v.Started}, instant{&v.Seen}, instant{&v.Ended}, &v.Why, &v.Segments, &v.Bytes, &v.Lost, &erased)
	v.Deleted = erased > 0
	if err == nil {
		v.Session, err = strconv.ParseUint(session, 16, 64)
	}
	return v, err
}

// Segments returns what is kept of a recording after a number, in order.
func (s *Store) Segments(ctx context.Context, host, id string, after uint64, limit int) ([]roster.Segment, error) {
	return list(ctx, s.read, func(r scanner) (roster.Segment, error) {
		var v roster.Segment
		err := r.Scan(&v.Number, &v.Digest, &v.Statement, (*[]byte)(&v.Key))
		return v, err
	}, `SELECT number, digest, statement, host_key FROM terminal_segments WHERE host = ? AND terminal = ? AND number > ? ORDER BY number LIMIT ?`,
		host, id, int64(min(after, 1<<62)), limit)
}

// EndHostSession has a host end one of its sessions, and tells who did.
func (s *Store) EndHostSession(ctx context.Context, t roster.Terminal, a roster.Act, why string) error {
	err := s.write(ctx, func(x *tx) error {
		err := x.run(ctx, `INSERT INTO ended_sessions VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`, t.Host, sessionHex(t.Session), a.By, ns(a.At))
		if err != nil {
			return err
		}
		x.hosts = append(x.hosts, t.Host)
		return x.tell(ctx, a, "session %x of %s on %s under %s is ended: %s", t.Session, t.Person, t.Host, t.Grant, why)
	})
	if err != nil {
		return fmt.Errorf("end session %x: %w", t.Session, err)
	}
	return nil
}

// endedSince asks for the sessions of a host that somebody ended since.
type endedSince struct {
	host string
	at   int64
}

// EndedSessions returns those sessions of a host that somebody ended since.
func (s *Store) EndedSessions(ctx context.Context, host string, since time.Time) (map[uint64]string, error) {
	ended, _, err := readTogether(ctx, &s.looks.ended, endedSince{host, ns(since)}, s.ended)
	return ended, err
}

func (s *Store) ended(ctx context.Context, all []endedSince) (map[endedSince]map[uint64]string, error) {
	found := map[endedSince]map[uint64]string{}
	asked := map[string][]endedSince{}
	names, first := make([]string, 0, len(all)), all[0].at
	for _, e := range all {
		found[e] = map[uint64]string{}
		asked[e.host] = append(asked[e.host], e)
		names, first = append(names, e.host), min(first, e.at)
	}
	type one struct {
		host, session, by string
		at                int64
	}
	rows, err := list(ctx, s.read, func(r scanner) (v one, err error) {
		err = r.Scan(&v.host, &v.session, &v.by, &v.at)
		return v, err
	}, `SELECT host, session, ended_by, at FROM ended_sessions WHERE at >= ? AND host IN `+among(names), append([]any{first}, args(names)...)...)
	for _, v := range rows {
		id, perr := strconv.ParseUint(v.session, 16, 64)
		err = errors.Join(err, perr)
		for _, e := range asked[v.host] {
			if v.at >= e.at {
				found[e][id] = v.by
			}
		}
	}
	return found, err
}
