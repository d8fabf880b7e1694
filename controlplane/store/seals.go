package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// sealable is what came of a host, as its seals have it.
type sealable struct {
	digest []byte
	gap    bool // it tells of what the host had lost
}

// newest is the newest seal of a host.
type newest struct {
	key         []byte
	outbox      string
	seq, number uint64
	digest      []byte
}

// sealed looks at a seal as it comes, and keeps it as the host's newest. Why it
// does not hold, if it does not, is in the text. `curfew verify` looks again,
// and at all of them.
func (k keeper) sealed(ctx context.Context, seq uint64, envelope []byte) (why string, err error) {
	s, err := ledger.OpenSeal(envelope, k.host.ReceiptKey)
	switch {
	case err != nil:
		return "it is not signed by the host's key", nil //nolint:nilerr // that is what is told
	case s.Fleet != k.fleet || s.Host != k.host.Name:
		return fmt.Sprintf("it is that of %s in %s", s.Host, s.Fleet), nil
	}
	var was newest
	err = k.QueryRowContext(ctx, `SELECT host_key, outbox, seq, number, digest FROM host_seals WHERE host = ?`, k.host.Name).
		Scan(&was.key, &was.outbox, &was.seq, &was.number, &was.digest)
	if err = known(err); err != nil && !errors.Is(err, roster.ErrUnknown) {
		return "", err
	}
	why = was.next(s, seq, k.outbox, k.host.ReceiptKey)
	if why == "" {
		why, err = k.covers(ctx, s, seq)
	}
	if err != nil {
		return "", err
	}
	return why, k.run(ctx, `INSERT INTO host_seals VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (host) DO UPDATE SET host_key = excluded.host_key,
		outbox = excluded.outbox, seq = excluded.seq, number = excluded.number, digest = excluded.digest`,
		k.host.Name, []byte(k.host.ReceiptKey), k.outbox, seq, s.Number, s.Digest())
}

// next says why a seal does not go on from this one. A host that has another key
// began anew, and so may one whose outbox has another name.
func (w newest) next(s ledger.Seal, seq uint64, outbox string, key []byte) string {
	same := w.outbox == outbox
	switch {
	case seq <= uint64(len(s.Digests)):
		return fmt.Sprintf("it is for %d entries, and %d stand before it", len(s.Digests), seq-1)
	case !bytes.Equal(w.key, key), !same && s.Number <= w.number:
		return ""
	case s.Number != w.number+1:
		return fmt.Sprintf("it is seal %d, and stands behind seal %d", s.Number, w.number)
	case !bytes.Equal(s.Before, w.digest):
		return fmt.Sprintf("it is seal %d, and seal %d is not the one that it follows on", s.Number, w.number)
	case same && seq-w.seq != uint64(len(s.Digests))+1:
		return fmt.Sprintf("it is for %d entries, and %d stand before it", len(s.Digests), seq-w.seq-1)
	}
	return ""
}

// covers says which of the entries before a seal is not what it has in its
// place. Those that never came are told as missing already.
func (k keeper) covers(ctx context.Context, s ledger.Seal, seq uint64) (why string, err error) {
	first := seq - uint64(len(s.Digests))
	if err := k.recall(ctx, first, seq-1); err != nil {
		return "", err
	}
	for i, want := range s.Digests {
		at := first + uint64(i)
		got, here := k.came[at]
		if here && !bytes.Equal(got.digest, want) && (len(want) > 0 || !got.gap) {
			return fmt.Sprintf("entry %d of the outbox is not what was sealed, in seal %d", at, s.Number), nil
		}
	}
	return "", nil
}

// recall reads what came of the host earlier, as far as it is not at hand.
func (k keeper) recall(ctx context.Context, from, to uint64) error {
	for from <= to && k.came[to].digest != nil {
		to--
	}
	if from > to {
		return nil
	}
	if err := k.put(ctx); err != nil {
		return err
	}
	_, err := list(ctx, k, func(r scanner) (struct{}, error) {
		var seq uint64
		var kind string
		var raw []byte
		err := r.Scan(&seq, &kind, &raw)
		k.came[seq] = sealable{ledger.EntryDigest(raw), kind == ledger.Gap.String()}
		return struct{}{}, err
	}, `SELECT seq, kind, raw FROM entries WHERE host = ? AND outbox = ? AND seq BETWEEN ? AND ? AND erased = 0`, k.host.Name, k.outbox, from, to)
	return err
}

// alertOf puts into the record that a seal does not hold.
func (k keeper) alertOf(ctx context.Context, e ledger.Entry, seq uint64, why string) error {
	return k.own(ctx, ledger.Entry{
		Kind: ledger.Gap, At: e.At, Host: k.host.Name,
		Text: fmt.Sprintf("%s %s, entry %d of its outbox %s: %s", roster.BadSeal, k.host.Name, seq, k.outbox, why),
	}, "")
}
