package store

import (
	"context"
	"fmt"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// ownOutbox names the entries that the control plane makes itself.
const ownOutbox = "control-plane"

// tell puts what somebody did to the fleet into the record, with the change
// itself or not at all.
func (t *tx) tell(ctx context.Context, a roster.Act, format string, args ...any) error {
	e := ledger.Entry{Kind: ledger.Admin, At: a.At, Person: a.By, Text: fmt.Sprintf(format, args...)}
	return t.run(ctx, `INSERT INTO entries (host, outbox, seq, kind, at, grant_id, person, words, receipt_ok, receipt_key, raw)
		SELECT '', ?, coalesce(max(seq), 0) + 1, ?, ?, '', ?, ?, 0, x'', ? FROM entries WHERE host = '' AND outbox = ?`,
		ownOutbox, e.Kind.String(), ns(e.At), e.Person, words(e), e.Bytes(), ownOutbox)
}
