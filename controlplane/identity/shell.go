package identity

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"curfew.internal/controlplane/roster"
)

// Bounds of wrong codes that come in a person's name from elsewhere than her own
// devices: from a host, or from an account at the provider that is not hers yet.
// From one place they are as many as she may mistype on her devices, and count
// apart from those and from the other places': whoever broke into a host, or is
// called like her at the provider, guesses no faster than a thief of her laptop,
// and keeps her from nothing but that place. From all together they are more,
// and bounded as well, so that many of them do not guess without end: one alone
// never uses those up.
const (
	placeTries  = freeTry
	placeEvery  = mostPut
	allTries    = 4 * placeTries
	allEvery    = placeEvery / 3
	mostCounted = 1 << 16 // remembered; then all are forgotten
)

var (
	errHostTries    = roster.Refuse(roster.TooMuch, "too many wrong codes were typed on this host in your name: wait %v, or ask with `curfew request` on a computer of yours", placeEvery)
	errFleetTries   = roster.Refuse(roster.TooMuch, "too many wrong codes were typed on hosts in your name: wait %v, or ask with `curfew request` on a computer of yours", allEvery)
	errAccountTries = roster.Refuse(roster.TooMuch, "too many wrong codes were given for this account: wait %v, or use a passkey", placeEvery)
	errNameTries    = roster.Refuse(roster.TooMuch, "too many wrong codes were given for accounts of your name: wait %v, or use a passkey", allEvery)
)

// A place is where codes come from in a person's name. Its keys are hers and
// the place's, and hers and that of all places of the kind.
type place struct {
	one, all       [2]string
	errOne, errAll error
}

// SpendCodeAt uses up a code that the person typed on a host, or says why not.
func (d *Desk) SpendCodeAt(ctx context.Context, host, person, code string) error {
	return d.spendAt(ctx, person, code, place{
		one: [2]string{person, host}, all: [2]string{person}, errOne: errHostTries, errAll: errFleetTries,
	})
}

// spendFor uses up a code that is to prove that an account is the person's. No
// host's name has a space in it.
func (d *Desk) spendFor(ctx context.Context, subject, person, code string) error {
	return d.spendAt(ctx, person, code, place{
		one: [2]string{person, "account " + subject}, all: [2]string{person, "account "}, errOne: errAccountTries, errAll: errNameTries,
	})
}

func (d *Desk) spendAt(ctx context.Context, person, code string, at place) error {
	now := d.Clock.Now().Wall
	giveBack, err := d.try(at, now)
	if err != nil {
		return err
	}
	err = d.Store.UpdateFactor(ctx, person, func(t roster.TOTP) (roster.TOTP, error) {
		was := t
		t, err := d.check(person, t, code, now)
		if err != nil {
			was.RefusedAt = t.RefusedAt
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

// try takes one of the tries that are left, of the place's in the person's name
// and of all places', or says which of them are used up.
func (d *Desk) try(at place, now time.Time) (giveBack func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	here := d.reserve(at.one, rate.Every(placeEvery), placeTries, now)
	if here == nil {
		return nil, at.errOne
	}
	everywhere := d.reserve(at.all, rate.Every(allEvery), allTries, now)
	if everywhere == nil {
		here.CancelAt(now)
		return nil, at.errAll
	}
	return func() { here.CancelAt(now); everywhere.CancelAt(now) }, nil
}

// reserve takes one of what a key has left; nil, if that is nothing. The caller
// holds mu.
func (d *Desk) reserve(key [2]string, every rate.Limit, burst int, now time.Time) *rate.Reservation {
	one := d.tries[key]
	if one == nil {
		if len(d.tries) >= mostCounted || d.tries == nil {
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
