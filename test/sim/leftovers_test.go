package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"curfew.internal/agent"
	machine "curfew.internal/agent/host"
	"curfew.internal/agent/keep"
	"curfew.internal/ledger"
)

// litter leaves a file that outlives its session, and power cuts.
func (w *world) litter(person string) {
	name := fmt.Sprintf("/tmp/%d", len(w.littered))
	w.littered = append(w.littered, name)
	w.junk[name] = person
}

// mayLookAfter is what goes on beside the loop: perhaps a look, in which the
// agent may die.
func (w *world) mayLookAfter() {
	switch n := w.chance.IntN(12); {
	case n < 3 && w.fuse == 0 && !w.calm:
		w.fuse = 1 + w.chance.IntN(8)
		w.lookAfter()
		w.fuse = 0
	case n < 8:
		w.lookAfter()
	}
}

// lookAfter is the agent's look for leftovers.
func (w *world) lookAfter() {
	w.alive("a look for leftovers", func() { w.agent.LookAfter(context.Background()) })
}

func (hostOf) Snapshot(context.Context) ([]byte, error) { return []byte(`{}`), nil }

func (h hostOf) Leavings(_ context.Context, t machine.Trace) (found machine.Leavings, err error) {
	found.Looked = []string{"everywhere"}
	var begun, names []string
	_ = json.Unmarshal(t.Begun, &begun) // none
	for _, name := range slices.Sorted(maps.Keys(h.junk)) {
		if h.junk[name] == t.Person {
			names = append(names, name)
		}
	}
	for _, name := range begun {
		if !slices.Contains(names, name) {
			found.Removed = append(found.Removed, name)
		}
	}
	if !t.Own() {
		found.Left = names
		return found, nil
	}
	plan, err := json.Marshal(append(begun, names...))
	if err != nil {
		return found, err
	}
	t.Begin(plan)
	for _, name := range names {
		h.change()
		delete(h.junk, name)
		found.Removed = append(found.Removed, name)
	}
	return found, nil
}

func (k keptOf) looks() keep.Folder { return keep.Folder{Dir: k.w.dir + "/looks"} }

func (k keptOf) Befores() ([]agent.Before, error) {
	return slices.Collect(maps.Values(k.w.befores)), nil
}

func (k keptOf) SaveBefore(b agent.Before) error {
	k.w.change()
	k.w.befores[b.Person] = b
	return nil
}

func (k keptOf) DropBefore(person string) error {
	k.w.change()
	delete(k.w.befores, person)
	return nil
}

func (k keptOf) Look(id string) (l agent.Look, err error) {
	_, err = k.looks().Load(id, &l)
	return l, err
}

func (k keptOf) SaveLook(l agent.Look) error {
	k.w.change()
	if k.w.bug == "removals untold" {
		l.Removals = nil
	}
	err := k.looks().Save(l.Grant, l)
	k.w.change()
	return err
}

func (k keptOf) DropLook(id string) error {
	k.w.change()
	return k.looks().Drop(id)
}

// tally is what the record says of leftovers.
type tally struct {
	removed map[string]bool
	last    map[string]ledger.Entry // by grant
}

// count takes an entry, which tells another look than the one before it of
// that grant, or brings the very same receipt.
func (c *tally) count(e ledger.Entry) error {
	r, err := ledger.OpenLeftovers(e.Receipt, public(receiptKey))
	if err != nil {
		return err
	}
	for _, name := range r.Removed {
		c.removed[name] = true
	}
	if old, ok := c.last[e.Grant]; ok && old.At.Equal(e.At) && !bytes.Equal(old.Receipt, e.Receipt) {
		return fmt.Errorf("two looks after %s at a time", e.Grant)
	}
	c.last[e.Grant] = e
	return nil
}

// checkLitter: after the end of all grants nothing that was left is left, and
// the record tells of every removal.
func (w *world) checkLitter(c tally) error {
	for _, name := range w.littered {
		if _, there := w.junk[name]; there {
			return fmt.Errorf("%s is left of %s", name, w.junk[name])
		}
		if !c.removed[name] {
			return fmt.Errorf("%s went, and no receipt tells of it", name)
		}
	}
	return nil
}
