package uplink

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"time"

	"curfew.internal/wire/uplink"
)

const (
	// lookAgain is the longest wait at once: a machine that was suspended
	// has aged without its timers.
	lookAgain = 10 * time.Minute
	// renewAgain is about the wait after a renewal that failed.
	renewAgain = time.Minute
)

// renew keeps the certificate fresh until ctx is done.
func (c *Client) renew(ctx context.Context) error {
	spread := mrand.Float64() //nolint:gosec // spreads load, hides nothing
	var said string
	for {
		wait := min(lookAgain, c.renewAt(spread).Sub(c.Clock.Now().Wall))
		if wait <= 0 {
			err := c.renewNow(ctx)
			wait = time.Duration((0.5 + spread) * float64(renewAgain))
			if err != nil && ctx.Err() == nil && kindOf(err) != said {
				c.Log.WarnContext(ctx, "certificate not renewed yet", "err", explain(err), "ends", c.leaf().NotAfter)
				said = kindOf(err)
			} else if err == nil {
				said = ""
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.Clock.After(wait):
		}
	}
}

// renewAt is two thirds into the certificate's life, and a little later for
// some than for others.
func (c *Client) renewAt(spread float64) time.Time {
	leaf := c.leaf()
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotBefore.Add(life*2/3 + time.Duration(spread*float64(life)/20))
}

func (c *Client) renewNow(ctx context.Context) error {
	ctx, done := context.WithTimeout(ctx, 30*time.Second)
	defer done()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, c.Identity.Key)
	if err != nil {
		return fmt.Errorf("make certificate request: %w", err)
	}
	conn, err := c.dial()
	if err != nil {
		return err
	}
	reply, err := uplink.NewUplinkClient(conn).Renew(ctx, &uplink.RenewRequest{Csr: csr})
	_ = conn.Close() // what there is to say of it, err says
	if err != nil {
		return err
	}
	id := c.Identity
	id.Certificate = reply.GetCertificate()
	if err := id.check(); err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(id.Certificate)
	if err != nil {
		return err
	}
	// It counts from now on even if the disk does not take it.
	c.mu.Lock()
	c.certificate = leaf
	c.mu.Unlock()
	c.Log.InfoContext(ctx, "certificate renewed", "ends", leaf.NotAfter)
	if err := c.Renewed(leaf.Raw); err != nil {
		return errors.Join(errors.New("the renewed certificate is in memory only"), err)
	}
	return nil
}
