// Package signature signs the calls of people's programs, and checks them.
//
// It is one fixed profile of HTTP Message Signatures (RFC 9421) with Ed25519
// and Content-Digest (RFC 9530): what is signed is always the method, the
// path and the digest of the whole body, with a time and a nonce, by the
// session that is named as the key. It takes no other components, algorithm
// or spelling, and it signs no query: a request that has one is refused.
package signature

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// Bounds of a signed request.
const (
	MaxBody = 1 << 20          // bytes
	Window  = 60 * time.Second // between the signer's clock and the reader's
)

// Names of the three headers of the profile.
const (
	headerDigest    = "Content-Digest"
	headerInput     = "Signature-Input"
	headerSignature = "Signature"
)

// Reasons for which a request is refused. Their texts are for the person at
// the other end.
var (
	ErrUnsigned = errors.New("this call is not signed: sign in with `curfew login`")
	ErrForm     = errors.New("the signature has another form than docs/protocol/api.md says")
	ErrDigest   = errors.New("the body is not the one that was signed")
	ErrFalse    = errors.New("the signature is false: sign in again with `curfew login`")
	ErrClock    = errors.New("the signature's time is over a minute away from the server's: set this machine's clock")
	ErrReplayed = errors.New("this very call was made before")
	ErrTooLarge = errors.New("the call is over 1 MiB")
)

// params are what varies in a signature's parameters.
type params struct {
	created int64
	nonce   string
	session string
}

var inputForm = regexp.MustCompile(`^curfew=(\("@method" "@path" "content-digest"\);created=([0-9]{1,12});` +
	`nonce="([A-Za-z0-9_-]{22,64})";keyid="([a-z0-9-]{1,64})";alg="ed25519")$`)

// String is the parameters as they stand behind "curfew=" and in the base.
func (p params) String() string {
	return fmt.Sprintf(`("@method" "@path" "content-digest");created=%d;nonce="%s";keyid="%s";alg="ed25519"`,
		p.created, p.nonce, p.session)
}

func parseInput(s string) (params, error) {
	m := inputForm.FindStringSubmatch(s)
	if m == nil {
		return params{}, ErrForm
	}
	created, err := strconv.ParseInt(m[2], 10, 64)
	if err != nil {
		return params{}, ErrForm
	}
	p := params{created: created, nonce: m[3], session: m[4]}
	if p.String() != m[1] {
		return params{}, ErrForm
	}
	return p, nil
}

// Digest is the value of Content-Digest for the body.
func Digest(body []byte) string {
	sum := sha256.Sum256(body)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// base is RFC 9421's signature base, section 2.5.
func base(method, path, digest string, p params) []byte {
	return []byte("\"@method\": " + method + "\n\"@path\": " + path + "\n\"content-digest\": " + digest +
		"\n\"@signature-params\": " + p.String())
}

const signaturePrefix, signatureSuffix = "curfew=:", ":"

func formatSignature(sig []byte) string {
	return signaturePrefix + base64.StdEncoding.EncodeToString(sig) + signatureSuffix
}

func parseSignature(s string) ([]byte, error) {
	n := len(s)
	if n < len(signaturePrefix)+len(signatureSuffix) || s[:len(signaturePrefix)] != signaturePrefix || s[n-1:] != signatureSuffix {
		return nil, ErrForm
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(s[len(signaturePrefix) : n-1])
	if err != nil || len(sig) != ed25519.SignatureSize {
		return nil, ErrForm
	}
	return sig, nil
}
