package identity

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"curfew.internal/controlplane/roster"
)

// Bounds of wrong codes that hosts bring in a person's name. They are as many
// as she may mistype on her devices, and count apart from those: a host that
// was broken into guesses no faster than a thief of her laptop, and locks
// nobody out.
const (
	hostTries   = freeTry
	hostEvery   = mostPut
	hostPersons = 4096 // remembered; then all are forgotten
)

var errHostTries = roster.Refuse(roster.TooMuch, "too many wrong codes were typed on hosts in your name: wait %v, or ask with `curfew request` on a computer of yours", hostEvery)

// SpendCodeAt uses up a code that the person typed on a host, or says why not.
func (d *Desk) SpendCodeAt(ctx context.Context, person, code string) error {
	now := d.Clock.Now().Wall
	try := d.try(person, now)
	if try == nil {
		return errHostTries
	}
	err := d.Store.UpdateFactor(ctx, person, func(t roster.TOTP) (roster.TOTP, error) {
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
	if err == nil {
		try.CancelAt(now)
	}
	return err
}

// try takes one of the person's tries; nil, if none is left.
func (d *Desk) try(person string, now time.Time) *rate.Reservation {
	d.mu.Lock()
	defer d.mu.Unlock()
	one := d.tries[person]
	if one == nil {
		if len(d.tries) >= hostPersons || d.tries == nil {
			d.tries = map[string]*rate.Limiter{}
		}
		one = rate.NewLimiter(rate.Every(hostEvery), hostTries)
		d.tries[person] = one
	}
	r := one.ReserveN(now, 1)
	if r.DelayFrom(now) > 0 {
		r.CancelAt(now)
		return nil
	}
	return r
}
