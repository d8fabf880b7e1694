package keep

import (
	"fmt"
	"os"
	"time"

	"curfew.internal/canon"
	"curfew.internal/clock"
)

const (
	markFile = "clock"
	markKind = "curfew clock 1"
)

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

// loadMark reads the mark. One that is damaged or missing is made anew from
// the time at which the kept set was accepted.
func (k *Keep) loadMark() mark {
	var m mark
	b, err := os.ReadFile(k.path(markFile))
	if err == nil {
		b, err = unseal(markKind, b)
	}
	if err == nil {
		err = canon.Read(b, m.field)
	}
	if err != nil {
		m = mark{}
	}
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

func (k *Keep) saveMark() error {
	if k.lock == nil {
		return nil
	}
	k.saveMu.Lock()
	defer k.saveMu.Unlock()
	k.markMu.Lock()
	m := k.mark
	k.markMu.Unlock()
	if err := replace(k.path(markFile), sealed(markKind, m.bytes()), 0o600); err != nil {
		return fmt.Errorf("write clock mark: %w", err)
	}
	return nil
}
