package identity

import (
	"context"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"time"

	"github.com/pquerna/otp/hotp"

	"curfew.internal/controlplane/roster"
)

// Factor is the name of this second factor in evidence.
const Factor = "totp"

// RFC 6238: 30 s steps; one step of skew either way, section 5.2.
const (
	step     = 30
	skew     = 1
	freeTry  = 5 // wrong codes in a row before waiting begins
	firstPut = 30 * time.Second
	mostPut  = 15 * time.Minute // nobody is locked out for longer than this
)

// ErrCode is the refusal of a code.
var ErrCode = roster.Refuse(roster.Denied, "that code is not right (or was used already): wait for the next one and try again")

// SpendCode uses up the person's present code, or says why not.
func (d *Desk) SpendCode(ctx context.Context, person, code string) error {
	now := d.Clock.Now().Wall
	err := d.Store.UpdateFactor(ctx, person, func(t roster.TOTP) (roster.TOTP, error) {
		return d.check(person, t, code, now)
	})
	if errors.Is(err, roster.ErrUnknown) {
		return ErrCode
	}
	return err
}

// check compares the code with those of this step and its neighbours, as far
// as they are not used up, and returns the factor as it is afterwards.
func (d *Desk) check(person string, t roster.TOTP, code string, now time.Time) (roster.TOTP, error) {
	if now.Before(t.RetryAt) {
		return t, roster.Refuse(roster.TooMuch, "too many wrong codes in a row: wait until %s UTC", t.RetryAt.UTC().Format(time.TimeOnly))
	}
	secret, err := d.Box.Open(person, t.Secret)
	if err != nil {
		return t, err
	}
	text := base32.StdEncoding.EncodeToString(secret)
	at := uint64(now.Unix()) / step //nolint:gosec // after 1970
	for s := at - skew; s <= at+skew; s++ {
		want, err := hotp.GenerateCode(text, s)
		if err != nil {
			return t, fmt.Errorf("compute code: %w", err)
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 && s > t.LastStep {
			t.LastStep, t.Failures, t.RetryAt = s, 0, time.Time{}
			return t, nil
		}
	}
	t.Failures, t.RefusedAt = t.Failures+1, now
	if t.Failures >= freeTry {
		t.RetryAt = now.Add(min(firstPut<<min(t.Failures-freeTry, 10), mostPut))
	}
	return t, ErrCode
}
