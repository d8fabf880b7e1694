package keep

import (
	"errors"
	"fmt"
	"os"
	"time"

	"curfew.internal/canon"
	"curfew.internal/clock"
)

const (
	markFile = "clock"
	markKind = "curfew clock 1"
	saidFile = "said" // what the control plane's clock said last, in the form of a mark
)

// noticeable is a difference between clocks that is worth a write.
const noticeable = 100 * time.Millisecond

// A mark is the latest time that was ever trusted, and when in the life of
// which boot that was.
type mark struct {
	wall time.Time
	boot time.Duration
	id   string // of the boot
}

// at is the earliest that it can be, given the mark. A clock that stands lower
// than in the boot of the mark began anew after it, and all of it has gone by
// since; one that stands higher may have gone on, as in a container, whose
// boots share the machine's. Of a mark without a boot it is not known when
// that was.
func (m mark) at(boot time.Duration, id string) time.Time {
	switch {
	case m.id != "" && boot >= m.boot:
		return m.wall.Add(boot - m.boot)
	case m.id != "" && m.id != id:
		return m.wall.Add(boot)
	}
	return m.wall
}

func (m mark) bytes() []byte {
	var w canon.Writer
	w.Nanos(1, m.wall)
	w.Uint(2, uint64(max(0, m.boot)))
	w.Text(3, m.id)
	return w.Bytes()
}

func (m *mark) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Nanos(&m.wall)
	case 2:
		var v uint64
		err := f.Uint(&v)
		m.boot = time.Duration(v)
		return err
	case 3:
		return f.Text(&m.id)
	}
	return f.Unknown()
}

// readMark reads a file with a mark; none, if it cannot be read.
func (k *Keep) readMark(file string) mark {
	var m mark
	b, err := os.ReadFile(k.path(file))
	if err == nil {
		b, err = unseal(markKind, b)
	}
	if err == nil {
		err = canon.Read(b, m.field)
	}
	if err != nil {
		return mark{}
	}
	return m
}

// loadMark reads the mark. One that is damaged or missing is made anew from
// the time at which the kept set was accepted.
func (k *Keep) loadMark() mark {
	m := k.readMark(markFile)
	if k.state.at.After(m.wall) {
		m = mark{wall: k.state.at}
	}
	return m
}

// Trusted is the time by which grants are judged. It never goes back: not if
// the wall clock is set back, and not over a restart.
func (k *Keep) Trusted(r clock.Reading) time.Time {
	k.markMu.Lock()
	defer k.markMu.Unlock()
	now := k.mark.at(r.Boot, k.Boot)
	if r.Wall.After(now) {
		now = r.Wall
	}
	boot := r.Boot
	if k.mark.id == k.Boot {
		boot = max(boot, k.mark.boot) // a reading that was overtaken
	}
	k.mark = mark{wall: now, boot: boot, id: k.Boot}
	return now
}

// Correct sets trusted time back to now, or to the wall clock if that is later,
// if it is further ahead of both than within; it returns by how much. The set
// counts as accepted then at the latest. A disk that takes nothing leaves the
// higher time on it: a restart then ends grants early, and none late.
func (k *Keep) Correct(r clock.Reading, now time.Time, within time.Duration) (by time.Duration, err error) {
	if r.Wall.After(now) {
		now = r.Wall
	}
	ahead := k.Trusted(r).Sub(now)
	if ahead <= within {
		return 0, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state.at.After(now) {
		next := k.state
		next.at = now
		next.opened, k.bad = k.open(next)
		k.state, k.dirty = next, true
	}
	k.markMu.Lock()
	k.mark = mark{wall: now, boot: r.Boot, id: k.Boot}
	k.markMu.Unlock()
	return ahead, errors.Join(k.save(), k.saveMark())
}

func (k *Keep) saveMark() error {
	if k.lock == nil {
		return nil
	}
	k.saveMu.Lock()
	defer k.saveMu.Unlock()
	k.markMu.Lock()
	m, said := k.mark, k.said
	k.markMu.Unlock()
	if err := replace(k.path(markFile), sealed(markKind, m.bytes()), 0o600); err != nil {
		return fmt.Errorf("write clock mark: %w", err)
	}
	if said.wall.IsZero() {
		return nil
	}
	if err := replace(k.path(saidFile), sealed(markKind, said.bytes()), 0o600); err != nil {
		return fmt.Errorf("write what the control plane's clock said: %w", err)
	}
	return nil
}

// Told takes what the control plane's clock said. It is that late at least:
// trusted time is raised to it, on a host whose wall clock is behind. By how
// much it was is written down at once, unless that is next to nothing.
func (k *Keep) Told(r clock.Reading, at time.Time) (raised time.Duration, err error) {
	raised = at.Sub(k.Trusted(r))
	k.markMu.Lock()
	k.said = mark{wall: at, boot: r.Boot, id: k.Boot}
	if raised > 0 {
		k.mark.wall = k.mark.wall.Add(raised)
	}
	k.markMu.Unlock()
	if raised > noticeable {
		err = k.saveMark()
	}
	return max(0, raised), err
}

// Earliest is the time that it is at least: the control plane said so, and
// time has gone by since. It is never after trusted time, which is what it
// returns on a host that was never told.
func (k *Keep) Earliest(r clock.Reading) time.Time {
	now := k.Trusted(r)
	k.markMu.Lock()
	defer k.markMu.Unlock()
	if k.said.wall.IsZero() {
		return now
	}
	if least := k.said.at(r.Boot, k.Boot); least.Before(now) {
		return least
	}
	return now
}
