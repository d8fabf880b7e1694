package signature

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"time"
)

// A Signer signs requests for a session. Its key is the device's.
type Signer struct {
	Session string
	Key     ed25519.PrivateKey
}

// Sign puts the profile's headers on r, whose whole body is given.
func (s Signer) Sign(r *http.Request, body []byte, now time.Time, nonce string) {
	p := params{created: now.Unix(), nonce: nonce, session: s.Session}
	digest := Digest(body)
	r.Header.Set(headerDigest, digest)
	r.Header.Set(headerInput, "curfew="+p.String())
	r.Header.Set(headerSignature, formatSignature(ed25519.Sign(s.Key, base(r.Method, r.URL.EscapedPath(), digest, p))))
}

// A Transport signs every request that it sends.
type Transport struct {
	Base    http.RoundTripper
	Session string
	Key     ed25519.PrivateKey // the device's
	Now     func() time.Time
}

// RoundTrip reads the body, which the digest needs whole, signs and sends.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		body, err = io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
		_ = r.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("read what is to be sent: %w", err)
		}
		if len(body) > MaxBody {
			return nil, ErrTooLarge
		}
	}
	signed := r.Clone(r.Context())
	signed.Body = io.NopCloser(bytes.NewReader(body))
	signed.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	signed.ContentLength = int64(len(body))
	Signer{t.Session, t.Key}.Sign(signed, body, t.Now(), rand.Text())
	return t.Base.RoundTrip(signed)
}
