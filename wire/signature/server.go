package signature

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net/http"
	"time"
)

// Sessions knows who may sign.
type Sessions interface {
	// Session returns the key of a session that stands, and a context that
	// carries who it is. It returns an error for any other.
	Session(ctx context.Context, id string) (context.Context, ed25519.PublicKey, error)
	// UseNonce refuses, with [ErrReplayed], a nonce that the session used
	// before; it need not remember it longer than until.
	UseNonce(ctx context.Context, session, nonce string, until time.Time) error
}

// A Verifier lets signed requests through, and no others.
type Verifier struct {
	Sessions Sessions
	Now      func() time.Time
	// Open reports the paths that need no signature.
	Open func(path string) bool
	// Refuse answers a request that is not let through.
	Refuse func(w http.ResponseWriter, r *http.Request, err error)
}

// Wrap returns next behind the check.
func (v Verifier) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v.Open(r.URL.Path) {
			r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
			next.ServeHTTP(w, r)
			return
		}
		ctx, body, err := v.check(w, r)
		if err != nil {
			v.Refuse(w, r, err)
			return
		}
		r = r.WithContext(ctx) //nolint:contextcheck // check makes it from r.Context
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.ContentLength = int64(len(body))
		next.ServeHTTP(w, r)
	})
}

func (v Verifier) check(w http.ResponseWriter, r *http.Request) (context.Context, []byte, error) {
	p, sig, err := read(r)
	if err != nil {
		return nil, nil, err
	}
	now := v.Now()
	created := time.Unix(p.created, 0)
	if d := now.Sub(created); d > Window || d < -Window {
		return nil, nil, ErrClock
	}
	ctx, key, err := v.Sessions.Session(r.Context(), p.session)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, nil, ErrTooLarge
	}
	if err != nil {
		return nil, nil, ErrDigest
	}
	digest := r.Header.Get(headerDigest)
	if digest != Digest(body) {
		return nil, nil, ErrDigest
	}
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, base(r.Method, r.URL.EscapedPath(), digest, p), sig) {
		return nil, nil, ErrFalse
	}
	// Last, so that nobody but the session can use its nonces up. It counts
	// for as long as the same signature could pass the test of time.
	if err := v.Sessions.UseNonce(ctx, p.session, p.nonce, created.Add(2*Window)); err != nil {
		return nil, nil, err
	}
	return ctx, body, nil
}

func read(r *http.Request) (params, []byte, error) {
	input, sig, digest := r.Header.Values(headerInput), r.Header.Values(headerSignature), r.Header.Values(headerDigest)
	if len(input) == 0 && len(sig) == 0 {
		return params{}, nil, ErrUnsigned
	}
	if len(input) != 1 || len(sig) != 1 || len(digest) != 1 || r.URL.RawQuery != "" || r.URL.ForceQuery {
		return params{}, nil, ErrForm
	}
	p, err := parseInput(input[0])
	if err != nil {
		return params{}, nil, err
	}
	raw, err := parseSignature(sig[0])
	return p, raw, err
}
