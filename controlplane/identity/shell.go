package identity

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"curfew.internal/controlplane/roster"
)

// Bounds of wrong codes that hosts bring in a person's name. From one host they
// are as many as she may mistype on her devices, and count apart from those and
// from the other hosts': one that was broken into guesses no faster than a
// thief of her laptop, and keeps her from nothing but itself. From all hosts
// together they are more, and bounded as well, so that many of them do not
// guess without end: one alone never uses those up.
const (
	hostTries   = freeTry
	hostEvery   = mostPut
	fleetTries  = 4 * hostTries
	fleetEvery  = hostEvery / 3
	hostPersons = 1 << 16 // remembered; then all are forgotten
)

var (
	errHostTries  = roster.Refuse(roster.TooMuch, "too many wrong codes were typed on this host in your name: wait %v, or ask with `curfew request` on a computer of yours", hostEvery)
	errFleetTries = roster.Refuse(roster.TooMuch, "too many wrong codes were typed on hosts in your name: wait %v, or ask with `curfew request` on a computer of yours", fleetEvery)
)

// SpendCodeAt uses up a code that the person typed on a host, or says why not.
func (d *Desk) SpendCodeAt(ctx context.Context, host, person, code string) error {
	now := d.Clock.Now().Wall
	giveBack, err := d.try(host, person, now)
	if err != nil {
		return err
	}
	err = d.Store.UpdateFactor(ctx, person, func(t roster.TOTP) (roster.TOTP, error) {
		was := t
		t, err := d.check(person, t, code, now)
		if err != nil {
			return was, err
		}
		return t, nil
	})
	if errors.Is(err, roster.ErrUnknown) {
		err = ErrCode
	}
	if !errors.Is(err, ErrCode) {
		giveBack() // it was no guess
	}
	return err
}

// try takes one of the tries that are left, of the host's in the person's name
// and of all hosts', or says which of them are used up.
func (d *Desk) try(host, person string, now time.Time) (giveBack func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	here := d.reserve([2]string{person, host}, rate.Every(hostEvery), hostTries, now)
	if here == nil {
		return nil, errHostTries
	}
	everywhere := d.reserve([2]string{person}, rate.Every(fleetEvery), fleetTries, now)
	if everywhere == nil {
		here.CancelAt(now)
		return nil, errFleetTries
	}
	return func() { here.CancelAt(now); everywhere.CancelAt(now) }, nil
}

// reserve takes one of what a key has left; nil, if that is nothing. The caller
// holds mu.
func (d *Desk) reserve(key [2]string, every rate.Limit, burst int, now time.Time) *rate.Reservation {
	one := d.tries[key]
	if one == nil {
		if len(d.tries) >= hostPersons || d.tries == nil {
			d.tries = map[[2]string]*rate.Limiter{}
		}
		one = rate.NewLimiter(every, burst)
		d.tries[key] = one
	}
	r := one.ReserveN(now, 1)
	if r.DelayFrom(now) > 0 {
		r.CancelAt(now)
		return nil
	}
	return r
}
