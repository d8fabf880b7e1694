// Package signature signs and checks the calls that people's programs make.
//
// It is one fixed profile of HTTP Message Signatures (RFC 9421): Ed25519,
// the components "@method", "@path" and "content-digest" (RFC 9530, SHA-256),
// and the parameters created, nonce and keyid, which is the session's id. A
// message that uses any other profile is refused, so that there is nothing to
// negotiate down.
package signature

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"
)

// MaxBody bounds what is signed, in bytes.
const MaxBody = 1 << 20

// Window is how far the signer's clock may be from the checker's, and so how
// long a nonce has to be remembered.
const Window = time.Minute

// Reasons for which a message is refused.
var (
	ErrUnsigned = errors.New("the call is not signed")
	ErrInvalid  = errors.New("the call's signature does not hold")
	ErrSkew     = errors.New("the call was signed more than a minute ago or ahead: set this computer's clock")
	ErrTooLarge = errors.New("the call is over 1 MiB")
)

// A Message is what is signed of a call.
type Message struct {
	Method, Path string
	Body         []byte
	Session      string
	Created      time.Time // whole seconds
	Nonce        string
}

func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

func (m Message) params() string {
	return fmt.Sprintf(`("@method" "@path" "content-digest");created=%d;nonce="%s";keyid="%s";alg="ed25519"`,
		m.Created.Unix(), m.Nonce, m.Session)
}

// Base is the signature base of RFC 9421, section 2.5.
func (m Message) Base() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "\"@method\": %s\n", m.Method)
	fmt.Fprintf(&b, "\"@path\": %s\n", m.Path)
	fmt.Fprintf(&b, "\"content-digest\": %s\n", digest(m.Body))
	fmt.Fprintf(&b, "\"@signature-params\": %s", m.params())
	return b.Bytes()
}

// Sign puts the three header fields of a signed message into h.
func (m Message) Sign(h http.Header, key ed25519.PrivateKey) {
	sig := ed25519.Sign(key, m.Base())
	h.Set("Content-Digest", digest(m.Body))
	h.Set("Signature-Input", "curfew="+m.params())
	h.Set("Signature", "curfew=:"+base64.StdEncoding.EncodeToString(sig)+":")
}

// A Transport signs every request that passes through it.
type Transport struct {
	Base    http.RoundTripper
	Session string
	Key     ed25519.PrivateKey
	Now     func() time.Time
}

// RoundTrip signs a copy of the request, body included, and sends it on.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		body, err = io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
		if cerr := r.Body.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return nil, fmt.Errorf("read request: %w", err)
		}
		if len(body) > MaxBody {
			return nil, ErrTooLarge
		}
	}
	signed := r.Clone(r.Context())
	signed.Body = io.NopCloser(bytes.NewReader(body))
	signed.ContentLength = int64(len(body))
	m := Message{
		Method: r.Method, Path: r.URL.EscapedPath(), Body: body,
		Session: t.Session, Created: t.Now().UTC(), Nonce: rand.Text(),
	}
	m.Sign(signed.Header, t.Key)
	return t.Base.RoundTrip(signed)
}

var (
	inputForm = regexp.MustCompile(`^curfew=\("@method" "@path" "content-digest"\);created=([0-9]{1,12});nonce="([A-Z2-7]{16,64})";keyid="([a-z0-9-]{1,64})";alg="ed25519"$`)
	sigForm   = regexp.MustCompile(`^curfew=:([A-Za-z0-9+/]{86}==):$`)
)

// A Checked message has the form of a signed one; its signature still has to
// be verified with the key of the session that it names.
type Checked struct {
	Message
	sig []byte
}

// Read takes the message and its signature from a request, whose body it
// replaces with what it read. It refuses a stale one.
func Read(r *http.Request, now time.Time) (Checked, error) {
	for _, name := range []string{"Signature-Input", "Signature", "Content-Digest"} {
		if len(r.Header.Values(name)) != 1 {
			return Checked{}, ErrUnsigned
		}
	}
	in := inputForm.FindStringSubmatch(r.Header.Get("Signature-Input"))
	sig := sigForm.FindStringSubmatch(r.Header.Get("Signature"))
	if in == nil || sig == nil {
		return Checked{}, ErrInvalid
	}
	created, err := strconv.ParseInt(in[1], 10, 64)
	if err != nil {
		return Checked{}, ErrInvalid
	}
	at := time.Unix(created, 0).UTC()
	if d := now.Sub(at); d > Window || d < -Window {
		return Checked{}, ErrSkew
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
	if err != nil {
		return Checked{}, fmt.Errorf("read request: %w", err)
	}
	if len(body) > MaxBody {
		return Checked{}, ErrTooLarge
	}
	if r.Header.Get("Content-Digest") != digest(body) {
		return Checked{}, ErrInvalid
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(sig[1])
	if err != nil {
		return Checked{}, ErrInvalid
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	m := Message{Method: r.Method, Path: r.URL.EscapedPath(), Body: body, Session: in[3], Created: at, Nonce: in[2]}
	return Checked{Message: m, sig: raw}, nil
}

// Verify reports whether key signed the message.
func (c Checked) Verify(key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, c.Base(), c.sig) {
		return ErrInvalid
	}
	return nil
}
