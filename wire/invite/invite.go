// Package invite is the form of the codes that people paste to join: one for
// a host, one for a person, one for everybody.
//
// A code says where the control plane is, how to know it, and one secret that
// works once: it is a secret as a whole and is never logged. That for everybody
// has none.
package invite

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"curfew.internal/canon"
)

// The kinds of code, as they begin.
const (
	Join   = "curfew-join-"   // a host
	Person = "curfew-invite-" // a person
	Fleet  = "curfew-fleet-"  // everybody who signs in elsewhere
)

// ErrCode is the class of refusals of a code.
var ErrCode = errors.New("this is no code of ours, or not all of it: copy it whole")

// A Code is what was pasted.
type Code struct {
	Kind   string // [Join], [Person] or [Fleet]
	URL    string // https://host:port
	CA     []byte // SHA-256 of the control plane's CA certificate, DER
	Roots  []ed25519.PublicKey
	Fleet  string
	Secret string
}

// LogValue keeps the secret out of logs.
func (Code) LogValue() slog.Value { return slog.StringValue("[secret]") }

// String is the code to paste.
func (c Code) String() string {
	return c.Kind + base64.RawURLEncoding.EncodeToString(c.bytes())
}

func (c Code) bytes() []byte {
	var w canon.Writer
	w.Text(1, c.URL)
	w.Blob(2, c.CA)
	for _, r := range c.Roots {
		w.Item(3, r)
	}
	w.Text(4, c.Fleet)
	w.Text(5, c.Secret)
	return w.Bytes()
}

// Parse reads a code of the kind.
func Parse(kind, s string) (Code, error) {
	body, ok := strings.CutPrefix(strings.TrimSpace(s), kind)
	if !ok || len(body) > 4096 {
		return Code{}, fmt.Errorf("%w (it begins with %s)", ErrCode, kind)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil {
		return Code{}, ErrCode
	}
	c := Code{Kind: kind}
	if err := canon.Read(b, c.field); err != nil || !bytes.Equal(b, c.bytes()) {
		return Code{}, ErrCode
	}
	return c, c.check()
}

func (c Code) check() error {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || len(c.CA) != 32 || c.Fleet == "" || (c.Secret == "") != (c.Kind == Fleet) {
		return ErrCode
	}
	if c.Kind == Join && len(c.Roots) == 0 {
		return ErrCode
	}
	return nil
}

func (c *Code) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Text(&c.URL)
	case 2:
		return f.Blob(&c.CA)
	case 3:
		var k []byte
		if err := f.Blob(&k); err != nil {
			return err
		}
		if len(k) != ed25519.PublicKeySize {
			return ErrCode
		}
		c.Roots = append(c.Roots, k)
		return nil
	case 4:
		return f.Text(&c.Fleet)
	case 5:
		return f.Text(&c.Secret)
	}
	return f.Unknown()
}
