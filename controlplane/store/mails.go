package store

import (
	"context"
	"time"

	"curfew.internal/controlplane/roster"
)

// mailsKept is how long it is kept that a mail was taken, or given up, so that
// nobody is told twice: longer than anything is news. Of a request that waits, it
// is kept until it does no more.
const mailsKept = 24 * time.Hour

// PutMails keeps what people are to be told, unless they have been, or are to be
// already; and forgets what is long told.
func (s *Store) PutMails(ctx context.Context, all []roster.Mail, at time.Time) error {
	return s.write(ctx, func(t *tx) error {
		t.quiet = true
		err := t.run(ctx, `DELETE FROM mails WHERE done_at > 0 AND done_at < ? AND NOT EXISTS (SELECT 1 FROM requests r WHERE r.id = mails.request AND r.state = 'asked')`,
			ns(at.Add(-mailsKept)))
		for _, m := range all {
			if err != nil {
				return err
			}
			err = t.run(ctx, `INSERT INTO mails (id, target, what, request, person, at, subject, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
				ON CONFLICT (target, what, request, person) DO NOTHING`, m.ID, m.Target, m.What, m.Request, m.Person, ns(m.At), m.Subject, m.Body)
		}
		return err
	})
}

// mostMails is how many are looked at at once.
const mostMails = 10_000

// OpenMails are those of a target that are neither taken nor given up, the oldest
// first.
func (s *Store) OpenMails(ctx context.Context, target string) ([]roster.Mail, error) {
	return list(ctx, s.read, scanMail, `SELECT id, target, what, request, person, at, subject, body FROM mails WHERE target = ? AND done_at = 0 ORDER BY at, id LIMIT ?`, target, mostMails)
}

func scanMail(r scanner) (roster.Mail, error) {
	var m roster.Mail
	err := r.Scan(&m.ID, &m.Target, &m.What, &m.Request, &m.Person, instant{&m.At}, &m.Subject, &m.Body)
	return m, err
}

// EndMail keeps that a mail was taken, or is given up. What it said is kept no more.
func (s *Store) EndMail(ctx context.Context, id string, at time.Time) error {
	return s.write(ctx, func(t *tx) error {
		t.quiet = true
		return t.run(ctx, `UPDATE mails SET done_at = ?, subject = '', body = '' WHERE id = ?`, ns(at), id)
	})
}

// Addresses are where people are told by mail, of all who can be.
func (s *Store) Addresses(ctx context.Context) (map[string]string, error) {
	rows, err := memberships(ctx, s.read, `SELECT name, email FROM people WHERE email <> '' AND disabled = 0`)
	all := map[string]string{}
	for name, email := range rows {
		all[name] = email[0]
	}
	return all, err
}

// Mailed are the people who were told a message by a target, or are to be, by
// request.
func (s *Store) Mailed(ctx context.Context, target, what string) (map[string][]string, error) {
	return memberships(ctx, s.read, `SELECT request, person FROM mails WHERE target = ? AND what = ? ORDER BY request, person`, target, what)
}
