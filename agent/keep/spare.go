package keep

import "curfew.internal/ledger"

// When room runs out, what a session did beside the programs that it started
// goes first: no flood of it costs a receipt, a login or an exec.
const (
	spareShare  = 75   // of a hundred of the quota, and of memory, for that
	spareAtOnce = 1000 // entries that one gap tells of, while there is no room
)

// sparable reports whether an entry may be dropped before others.
func sparable(k ledger.Kind) bool {
	return k == ledger.Exit || k == ledger.Open || k == ledger.Named || k == ledger.Connect
}

// hasSpare reports whether there is room for n bytes more of what is sparable;
// the caller holds mu.
func (o *Outbox) hasSpare(n int) bool {
	waits := int64(o.pendingBytes + n)
	if 100*waits > spareShare*int64(o.memory) {
		return false
	}
	for _, s := range o.segments {
		waits += s.size
	}
	return 100*waits <= spareShare*o.quota
}

// spare drops a sparable entry, and counts it. While the room lasts that long,
// each thousand is told, so that the count is on disk; the caller holds mu.
func (o *Outbox) spare() {
	if o.spared++; o.spared >= spareAtOnce {
		o.tellSpared()
	}
}

// tellSpared says how much was dropped so; the caller holds mu.
func (o *Outbox) tellSpared() {
	if o.spared == 0 {
		return
	}
	b := o.gap(ledger.Entry{Lost: o.spared, Text: "exits, opened and renamed files, and connections, for which the host had no room: the rest is kept for logins, programs and receipts"})
	if o.pendingBytes+len(b) > o.memory {
		return // it is counted on
	}
	o.spared = 0
	o.queue(b)
}
