package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"curfew.internal/controlplane/roster"
)

// ProvedFor notes that the session's person proved herself, and for what: her
// next requests may stand on it, where their roles let them.
func (s *Store) ProvedFor(ctx context.Context, p roster.Proof) error {
	return s.write(ctx, func(t *tx) error {
		t.quiet = true
		if err := t.proved(ctx, p.Session, p.At); err != nil {
			return err
		}
		_, now, err := factors(ctx, t, p.Session)
		if errors.Is(err, roster.ErrUnknown) {
			return nil // she has signed out meanwhile
		}
		if err == nil {
			err = t.run(ctx, `DELETE FROM proofs WHERE at <= ?`, ns(p.At.Add(-roster.ProofLife)))
		}
		if err != nil {
			return err
		}
		return t.run(ctx, `INSERT INTO proofs (session, at, factor, what, network, factors) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (session) DO UPDATE SET at = excluded.at, factor = excluded.factor, what = excluded.what, network = excluded.network, factors = excluded.factors, used = 0`,
			p.Session, ns(p.At), p.Factor, p.For, p.Network, now)
	})
}

// LastProof is the last on the session, if a request that comes from that
// network could stand on it; [roster.ErrUnknown], if there is none such. How old
// it may be is the caller's to say.
func (s *Store) LastProof(ctx context.Context, session, network string) (roster.Proof, error) {
	p, _, err := lastProof(ctx, s.read, session, network)
	return p, err
}

// lastProof finds the session and its person's factors as they are now: a server
// from before ends sessions, and changes factors, without a look at proofs.
func lastProof(ctx context.Context, q querier, session, network string) (p roster.Proof, name string, err error) {
	p = roster.Proof{Session: session, Network: network}
	var then []byte
	err = q.QueryRowContext(ctx, `SELECT at, factor, what, factors FROM proofs WHERE session = ? AND network = ? AND network <> '' AND used < ?`, session, network, roster.ProofUses).
		Scan(instant{&p.At}, &p.Factor, &p.For, &then)
	if err != nil {
		return p, "", fmt.Errorf("proof: %w", known(err))
	}
	name, now, err := factors(ctx, q, session)
	if err == nil && !bytes.Equal(now, then) {
		err = fmt.Errorf("proof by a factor that changed: %w", roster.ErrUnknown)
	}
	return p, name, err
}

// stands has a request stand on the proof that it names, if that is still the
// last on a session of its person's, and counts; [roster.ErrUsed], if not.
func (t *tx) stands(ctx context.Context, r roster.Request) error {
	if r.Proof == nil {
		return nil
	}
	last, name, err := lastProof(ctx, t, r.Proof.Session, r.Proof.Network)
	if errors.Is(err, roster.ErrUnknown) || err == nil && (name != r.Person || !last.At.Equal(r.Proof.At)) {
		return fmt.Errorf("proof: %w", roster.ErrUsed)
	}
	if err != nil {
		return err
	}
	return t.exec(ctx, `UPDATE proofs SET used = used + 1 WHERE session = ?`, r.Proof.Session)
}

// forgetProofs ends all of the person's. A passkey that comes and goes leaves her
// factors as they were, and a proof from before would count again.
func (t *tx) forgetProofs(ctx context.Context, name string) error {
	return t.run(ctx, `DELETE FROM proofs WHERE session IN (SELECT id FROM sessions WHERE person = ? UNION ALL SELECT id FROM web_sessions WHERE person = ?)`, name, name)
}

func scanBytes(r scanner) ([]byte, error) {
	var b []byte
	err := r.Scan(&b)
	return b, err
}

// factors are whose session it is, and a digest of what she can prove herself
// with: another one after any of it was enrolled, removed, locked or replaced.
func factors(ctx context.Context, q querier, session string) (name string, digest []byte, err error) {
	err = q.QueryRowContext(ctx, `SELECT person FROM sessions WHERE id = ? UNION ALL SELECT person FROM web_sessions WHERE id = ?`, session, session).Scan(&name)
	if err != nil {
		return "", nil, fmt.Errorf("session: %w", known(err))
	}
	keys, err := list(ctx, q, scanPasskey, passkeyColumns+`WHERE person = ? ORDER BY id`, name)
	if err != nil {
		return "", nil, err
	}
	secrets, err := list(ctx, q, scanBytes, `SELECT secret FROM totp WHERE person = ?`, name)
	if err != nil {
		return "", nil, err
	}
	h := sha256.New() // which takes all that is written
	for _, k := range keys {
		_, _ = fmt.Fprintf(h, "passkey %x %t\n", k.ID, k.Locked)
	}
	for _, b := range secrets {
		_, _ = fmt.Fprintf(h, "totp %x\n", b)
	}
	return name, h.Sum(nil), nil
}
