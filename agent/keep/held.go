package keep

import "curfew.internal/ledger"

// heldName names the file that says how many entries wait in memory.
const heldName = "held"

// sayHeld writes down, where it outlives this process and needs no disk, how
// many entries wait in memory for the disk: so that an agent which follows
// one that ended meanwhile knows how many were lost. The caller holds writeMu.
func (o *Outbox) sayHeld() {
	if o.held.Dir == "" {
		return
	}
	o.mu.Lock()
	n := o.missing()
	if o.failing == nil {
		o.owed = 0 // its gap was written with the rest
	} else {
		n += uint64(len(o.pending)) + o.lost + o.owed
	}
	o.mu.Unlock()
	if n == o.saidHeld {
		return
	}
	var err error
	if n == 0 {
		err = o.held.Drop(heldName)
	} else {
		err = o.held.Save(heldName, n)
	}
	if err != nil {
		o.log.Error("how many records wait for the disk is not written down", "err", err)
		return
	}
	o.saidHeld = n
}

// takeHeld tells of what an agent before this one held and took with it. Some
// of it may have reached the disk in its last moment: more may be told as
// missing than is, and never less than it said.
func (o *Outbox) takeHeld() {
	if o.held.Dir == "" {
		return
	}
	var n uint64
	text := "they waited in the memory of an agent that ended before the disk had room"
	if _, err := o.held.Load(heldName, &n); err != nil {
		o.log.Error("how many records waited for the disk cannot be read", "err", err)
		n, text = 1, "at least one; "+text
	}
	if n == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.owed, o.saidHeld = n, n
	o.queue(nobody, o.gap(ledger.Entry{Lost: n, Text: text}))
}
