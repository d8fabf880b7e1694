package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Errors about witnesses.
var (
	ErrWitness  = errors.New("no key of a witness")
	ErrUnsigned = errors.New("the witness has not cosigned it")
	ErrFalse    = errors.New("the cosignature is not the witness's")
	ErrOffer    = errors.New("malformed offer of a checkpoint")
)

// cosignatureV1 is the type of a witness's Ed25519 key (C2SP tlog-cosignature).
const cosignatureV1 = 4

const secretPrefix = "PRIVATE+KEY+"

// A Witness is the public half of a witness's key. A witness looks at each
// checkpoint of a log, and cosigns it if the log goes on from what it cosigned
// before.
type Witness struct {
	Name   string
	public ed25519.PublicKey
}

// keyed writes a witness's key, of either half.
func keyed(name string, hash uint32, half []byte) string {
	return fmt.Sprintf("%s+%08x+%s", name, hash, base64.StdEncoding.EncodeToString(append([]byte{cosignatureV1}, half...)))
}

// ParseWitness reads a key as [Witness.String] writes it: NAME+HASH+KEY, the
// form of C2SP signed notes.
func ParseWitness(text string) (Witness, error) {
	name, half, err := parseKeyed(text)
	if err != nil {
		return Witness{}, err
	}
	w := Witness{Name: name, public: half}
	if w.String() != text {
		return Witness{}, fmt.Errorf("%w: its parts do not belong together: a letter is wrong or missing", ErrWitness)
	}
	return w, nil
}

func parseKeyed(text string) (name string, half []byte, err error) {
	parts := strings.SplitN(text, "+", 3)
	if len(parts) != 3 || !witnessName(parts[0]) {
		return "", nil, fmt.Errorf("%w: it is written NAME+HASH+KEY", ErrWitness)
	}
	b, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(b) != 1+ed25519.PublicKeySize || b[0] != cosignatureV1 {
		return "", nil, fmt.Errorf("%w: its last part is no Ed25519 key for cosignatures", ErrWitness)
	}
	return parts[0], b[1:], nil
}

func witnessName(s string) bool {
	return s != "" && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '+' })
}

// String is the key as people pass it on.
func (w Witness) String() string { return keyed(w.Name, w.hash(), w.public) }

// hash is the key's hint in signatures.
func (w Witness) hash() uint32 {
	sum := sha256.Sum256(append([]byte(w.Name+"\n"), append([]byte{cosignatureV1}, w.public...)...))
	return binary.BigEndian.Uint32(sum[:])
}

// cosigned is what a witness signs.
func cosigned(text string, at uint64) []byte {
	return []byte("cosignature/v1\ntime " + strconv.FormatUint(at, 10) + "\n" + text)
}

// Cosigned returns when the witness cosigned the note, as it says: [ErrUnsigned]
// if it has not, [ErrFalse] if a line only claims so.
func (w Witness) Cosigned(signed []byte) (time.Time, error) {
	if len(w.public) != ed25519.PublicKeySize {
		return time.Time{}, ErrWitness
	}
	n, err := note.Open(signed, note.VerifierList(verifies{w}))
	var unknown *note.UnverifiedNoteError
	switch {
	case errors.As(err, &unknown):
		return time.Time{}, ErrUnsigned
	case err != nil:
		return time.Time{}, fmt.Errorf("%w: %w", ErrFalse, err)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(n.Sigs[0].Base64)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: in a strange spelling", ErrFalse)
	}
	return time.Unix(int64(binary.BigEndian.Uint64(b[4:])), 0).UTC(), nil //nolint:gosec // bounded by verifies
}

// verifies is a witness's key as the library wants it.
type verifies struct{ Witness }

func (v verifies) Name() string    { return v.Witness.Name }
func (v verifies) KeyHash() uint32 { return v.hash() }

func (v verifies) Verify(text, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(sig)
	return at < 1<<63 && ed25519.Verify(v.public, cosigned(string(text), at), sig[8:])
}

// A WitnessKey is a witness's whole key.
type WitnessKey struct {
	Witness
	private ed25519.PrivateKey
}

// NewWitnessKey is the key of a witness from 32 random bytes.
func NewWitnessKey(name string, seed []byte) (WitnessKey, error) {
	if !witnessName(name) || len(seed) != ed25519.SeedSize {
		return WitnessKey{}, fmt.Errorf("%w: its name has neither spaces nor +, like witness.example/curfew", ErrWitness)
	}
	private := ed25519.NewKeyFromSeed(seed)
	public, _ := private.Public().(ed25519.PublicKey)
	return WitnessKey{Witness{name, public}, private}, nil
}

// Secret is the key as it is kept in a file.
func (k WitnessKey) Secret() string {
	return secretPrefix + keyed(k.Name, k.hash(), k.private.Seed())
}

// ParseWitnessKey reads what [WitnessKey.Secret] wrote.
func ParseWitnessKey(text string) (WitnessKey, error) {
	rest, ok := strings.CutPrefix(text, secretPrefix)
	name, seed, err := parseKeyed(rest)
	if !ok || err != nil {
		return WitnessKey{}, fmt.Errorf("%w: the file does not hold one", ErrWitness)
	}
	k, err := NewWitnessKey(name, seed)
	if err == nil && k.Secret() != text {
		err = fmt.Errorf("%w: the file was changed", ErrWitness)
	}
	return k, err
}

// Cosign returns the line by which the witness says that, at the time, the log
// stood as the checkpoint says and never otherwise. Whether that is so the
// caller has found out, and keeps the checkpoint first.
func (k WitnessKey) Cosign(c Checkpoint, at time.Time) string {
	seconds := uint64(max(at.Unix(), 0))
	sig := binary.BigEndian.AppendUint32(nil, k.hash())
	sig = binary.BigEndian.AppendUint64(sig, seconds)
	sig = append(sig, ed25519.Sign(k.private, cosigned(c.Text(), seconds))...)
	return "\u2014 " + k.Name + " " + base64.StdEncoding.EncodeToString(sig) + "\n"
}

// An Offer is what a log asks a witness to cosign (C2SP tlog-witness,
// add-checkpoint): a checkpoint, and the proof that it goes on from what the
// witness cosigned before.
type Offer struct {
	Old   uint64 // entries that the log had then
	Proof tlog.TreeProof
	Note  []byte
}

// maxProof bounds a proof: no tree is higher.
const maxProof = 63

// Bytes is the offer as it is sent.
func (o Offer) Bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", o.Old)
	for _, h := range o.Proof {
		b.WriteString(h.String() + "\n")
	}
	b.WriteString("\n")
	b.Write(o.Note)
	return b.Bytes()
}

// ParseOffer reads an offer. Of the note it only says whose log it is about.
func ParseOffer(b []byte) (o Offer, origin string, err error) {
	head, signed, found := bytes.Cut(b, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	old, ok := strings.CutPrefix(lines[0], "old ")
	if !found || !ok || len(lines)-1 > maxProof {
		return o, "", ErrOffer
	}
	o.Old, err = strconv.ParseUint(old, 10, 64)
	if err != nil || strconv.FormatUint(o.Old, 10) != old {
		return Offer{}, "", fmt.Errorf("%w: %q is no number", ErrOffer, old)
	}
	for _, line := range lines[1:] {
		h, err := tlog.ParseHash(line)
		if err != nil || h.String() != line {
			return Offer{}, "", fmt.Errorf("%w: %q is no hash", ErrOffer, line)
		}
		o.Proof = append(o.Proof, h)
	}
	o.Note = signed
	origin, _, found = strings.Cut(string(signed), "\n")
	if !found {
		return Offer{}, "", fmt.Errorf("%w: it holds no checkpoint", ErrOffer)
	}
	return o, origin, nil
}
