package ledger

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	formats "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var cosignedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func witnessKey(t *testing.T, name string, seed byte) WitnessKey {
	t.Helper()
	k, err := NewWitnessKey(name, bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// noted is a checkpoint of a log, signed, and with lines behind it.
func noted(size uint64, lines ...string) (Checkpoint, []byte) {
	l := newLog()
	for i := range size {
		l.tell(i+1, event(i+1))
	}
	return Checkpoint{"example", l.tree(size)}, append(l.checkpoint(size), strings.Join(lines, "")...)
}

// retimed is a line with its time put forward.
func retimed(t *testing.T, line string) string {
	t.Helper()
	head, sig, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "w1 ")
	b, err := base64.StdEncoding.DecodeString(sig)
	if err != nil {
		t.Fatal(err)
	}
	b[11]++
	return head + "w1 " + base64.StdEncoding.EncodeToString(b) + "\n"
}

func TestCosignatures(t *testing.T) {
	w, other := witnessKey(t, "witness.example/w1", 1), witnessKey(t, "witness.example/w1", 2)
	c, _ := noted(5)
	line := w.Cosign(c, cosignedAt)
	elsewhere, _ := noted(6)
	for _, x := range []struct {
		name  string
		lines []string
		want  error
	}{
		{"the witness's line counts", []string{line}, nil},
		{"so it does among those of others", []string{other.Cosign(c, cosignedAt), line}, nil},
		{"none counts for none", nil, ErrUnsigned},
		{"another key of the same name is another witness", []string{other.Cosign(c, cosignedAt)}, ErrUnsigned},
		{"a line for another checkpoint is false", []string{w.Cosign(elsewhere, cosignedAt)}, ErrFalse},
		{"a line with another time is false", []string{retimed(t, line)}, ErrFalse},
	} {
		_, signed := noted(5, x.lines...)
		at, err := w.Cosigned(signed)
		if !errors.Is(err, x.want) || err == nil && !at.Equal(cosignedAt) {
			t.Errorf("%s: %v, %v", x.name, at, err)
		}
	}
}

// Others' programs read our cosignatures, and we read theirs.
func TestCosignaturesAreThoseOfOthers(t *testing.T) {
	w := witnessKey(t, "witness.example/w1", 1)
	c, _ := noted(5)
	_, signed := noted(5, w.Cosign(c, cosignedAt))
	v, err := formats.NewVerifierForCosignatureV1(w.String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		t.Fatal(err)
	}
	if at, err := formats.CoSigV1Timestamp(n.Sigs[0]); err != nil || !at.Equal(cosignedAt) {
		t.Errorf("they read %v, %v", at, err)
	}
	s, err := formats.NewSignerForCosignatureV1(w.Secret())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := note.Sign(&note.Note{Text: c.Text()}, s)
	if err != nil {
		t.Fatal(err)
	}
	if at, err := w.Cosigned(theirs); err != nil || at.Before(cosignedAt) {
		t.Errorf("we read %v, %v", at, err)
	}
}

func TestWitnessKeys(t *testing.T) {
	w := witnessKey(t, "witness.example/w1", 1)
	if got, err := ParseWitness(w.String()); err != nil || got.String() != w.String() {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := ParseWitnessKey(w.Secret()); err != nil || got.String() != w.String() {
		t.Errorf("%v, %v", got, err)
	}
	_, hash, _ := strings.Cut(w.String(), "+")
	for name, text := range map[string]string{
		"nothing": "", "a name": "witness.example/w1", "another name": "w2+" + hash, "a secret": w.Secret(), "the key of a log": newLog().key.String(),
		"a letter is missing": w.String()[:len(w.String())-2] + "=", "a space": "w 1+" + hash,
	} {
		if _, err := ParseWitness(text); !errors.Is(err, ErrWitness) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := ParseWitnessKey(text); text != w.Secret() && !errors.Is(err, ErrWitness) {
			t.Errorf("%s as a whole key: %v", name, err)
		}
	}
	if _, err := NewWitnessKey("a+b", make([]byte, 32)); !errors.Is(err, ErrWitness) {
		t.Error(err)
	}
	if _, err := (Witness{}).Cosigned(nil); !errors.Is(err, ErrWitness) {
		t.Error(err)
	}
}

func TestOffers(t *testing.T) {
	_, signed := noted(5)
	h := tlog.Hash{1, 2}
	o := Offer{Old: 3, Proof: tlog.TreeProof{h, h}, Note: signed}
	got, origin, err := ParseOffer(o.Bytes())
	if err != nil || origin != "curfew/example" || got.Old != 3 || len(got.Proof) != 2 || !bytes.Equal(got.Note, signed) {
		t.Fatalf("%+v of %q, %v", got, origin, err)
	}
	if !strings.HasPrefix(string(o.Bytes()), "old 3\n"+h.String()+"\n"+h.String()+"\n\ncurfew/example\n5\n") {
		t.Errorf("%s", o.Bytes())
	}
	many := Offer{Proof: make(tlog.TreeProof, maxProof+1), Note: signed}
	for name, b := range map[string]string{
		"nothing": "", "no note": "old 3\n\n", "no old size": h.String() + "\n\n" + string(signed), "a number with a zero before it": "old 03\n\n" + string(signed),
		"a number below zero": "old -3\n\n" + string(signed), "a hash that is none": "old 3\nxx\n\n" + string(signed), "too long a proof": string(many.Bytes()),
	} {
		if _, _, err := ParseOffer([]byte(b)); !errors.Is(err, ErrOffer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOffer(f *testing.F) {
	f.Add([]byte("old 3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\ncurfew/example\n5\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, _, err := ParseOffer(b)
		if err == nil && !bytes.Equal(o.Bytes(), b) {
			t.Errorf("%q is read as %q", b, o.Bytes())
		}
	})
}

func TestABundleThatWitnessesCosigned(t *testing.T) {
	a, b := witnessKey(t, "witness.example/a", 1), witnessKey(t, "witness.example/b", 2)
	l := story()
	c := Checkpoint{"example", l.tree(uint64(len(l.leaves)))}
	earlier := Checkpoint{"example", l.tree(3)}
	for _, x := range []struct {
		name    string
		lines   []string
		of      []Witness
		quorum  int
		said    int
		finding string
	}{
		{"nobody is asked for", []string{a.Cosign(c, cosignedAt)}, nil, 0, 0, ""},
		{"both did", []string{a.Cosign(c, cosignedAt), b.Cosign(c, cosignedAt)}, []Witness{a.Witness, b.Witness}, 2, 2, ""},
		{"one did, of two", []string{b.Cosign(c, cosignedAt)}, []Witness{a.Witness, b.Witness}, 1, 1, ""},
		{"one did, and both are asked for", []string{b.Cosign(c, cosignedAt)}, []Witness{a.Witness, b.Witness}, 2, 1, "1 of the witnesses"},
		{"one is named twice", []string{a.Cosign(c, cosignedAt)}, []Witness{a.Witness, a.Witness}, 2, 1, "1 of the witnesses"},
		{"a line of another checkpoint", []string{a.Cosign(earlier, cosignedAt)}, []Witness{a.Witness}, 1, 0, "the cosignature is not the witness's"},
		{"it is false, and not asked for", []string{a.Cosign(earlier, cosignedAt)}, []Witness{a.Witness}, 0, 0, "the cosignature is not the witness's"},
	} {
		bundle := l.export(0, upTo(c.Size)...)
		bundle.Checkpoint = append(bundle.Checkpoint, strings.Join(x.lines, "")...)
		r := Verify(bundle.Bytes(), Trust{Key: l.key, Witnesses: x.of, Quorum: x.quorum})
		said := 0
		for _, w := range r.Cosigned {
			if w.At.Equal(cosignedAt) {
				said++
			}
		}
		found := ""
		for _, f := range r.Findings {
			found += f.String() + "\n"
		}
		if said != x.said || (x.finding == "") != (found == "") || !strings.Contains(found, x.finding) {
			t.Errorf("%s: %d said so: %s", x.name, said, found)
		}
	}
}
