package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"curfew.internal/ledger"
)

type verifyCmd struct {
	Bundle     string `arg:"" type:"existingfile" help:"What \"curfew audit export\" wrote."`
	Key        string `placeholder:"KEY" help:"The log's key (curfew/FLEET+…), or a file that holds it; that which this computer knows, if it is left out."`
	Checkpoint string `type:"existingfile" placeholder:"FILE" help:"A checkpoint that you kept: the log has to go on from it."`

	Witness []string `sep:"none" placeholder:"KEY" help:"A witness (NAME+…), or a file that holds its key: it has to have cosigned the checkpoint. Once for each."`
	Quorum  int      `placeholder:"N" help:"How many of the witnesses have to; all, if it is left out."`
}

// errNotVerified is for a bundle with findings.
var errNotVerified = errors.New("the bundle does not verify")

// Run checks a bundle without asking anybody.
func (v verifyCmd) Run(_ context.Context, p *program) error {
	key, err := logKey(p, v.Key)
	if err != nil {
		return err
	}
	trust := ledger.Trust{Key: key}
	if v.Checkpoint != "" {
		if trust.Older, err = os.ReadFile(v.Checkpoint); err != nil {
			return err
		}
	}
	if err := v.witnesses(&trust); err != nil {
		return err
	}
	file, r, err := looked(v.Bundle, trust)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if p.Output == "json" {
		err = json.NewEncoder(p.out).Encode(r)
	} else {
		_, err = fmt.Fprint(p.out, verified(r))
	}
	if err == nil && len(r.Findings) > 0 {
		err = errNotVerified
	}
	return err
}

// looked checks a bundle, and leaves it open.
func looked(name string, trust ledger.Trust) (*os.File, ledger.Report, error) {
	file, err := os.Open(name) //nolint:gosec // the person names the file
	if err != nil {
		return nil, ledger.Report{}, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, ledger.Report{}, errors.Join(err, file.Close())
	}
	return file, ledger.VerifyFile(file, info.Size(), trust), nil
}

// witnesses adds those that have to have cosigned.
func (v verifyCmd) witnesses(t *ledger.Trust) error {
	for _, text := range v.Witness {
		text, err := keyText(text)
		if err != nil {
			return err
		}
		w, err := ledger.ParseWitness(text)
		if err != nil {
			return err
		}
		t.Witnesses = append(t.Witnesses, w)
	}
	if t.Quorum = v.Quorum; t.Quorum == 0 {
		t.Quorum = len(v.Witness)
	}
	if t.Quorum < 0 || t.Quorum > len(v.Witness) {
		return fmt.Errorf("--quorum: you name %d witnesses", len(v.Witness))
	}
	return nil
}

// logKey is the log's: given, in a file, or known to this computer.
func logKey(p *program, text string) (ledger.Key, error) {
	if text == "" {
		s, err := p.loadSession()
		if err != nil {
			return ledger.Key{}, errors.New("give the log's key with --key: `curfew-server log-key` prints it")
		}
		k, err := p.knownLog(s.Fleet)
		if err != nil {
			return ledger.Key{}, err
		}
		text = k.Key
	}
	text, err := keyText(text)
	if err != nil {
		return ledger.Key{}, err
	}
	return ledger.ParseKey(text)
}

// verified is the report for people.
func verified(r ledger.Report) string {
	var b strings.Builder
	if r.Checkpoint.Fleet != "" {
		fmt.Fprintf(&b, "Log of %s: %d entries, root %v, signed by the log's key.\n", r.Checkpoint.Fleet, r.Checkpoint.Size, r.Checkpoint.Root)
	}
	for _, c := range r.Cosigned {
		if c.At.IsZero() {
			fmt.Fprintf(&b, "Not cosigned by %s.\n", line(c.Name))
		} else {
			fmt.Fprintf(&b, "Cosigned by %s at %s.\n", line(c.Name), stamp(c.At))
		}
	}
	for _, c := range r.Since {
		fmt.Fprintf(&b, "It goes on from the checkpoint of %d entries.\n", c.Size)
	}
	if r.Asked != "" {
		fmt.Fprintf(&b, "Exported: %s.\n", line(r.Asked))
	}
	fmt.Fprintf(&b, "Entries that the log holds as they are here: %s.\n", numbers(r.Numbers))
	if len(r.Deleted) > 0 {
		fmt.Fprintf(&b, "Deleted, by the log's word; their digests are in it: %s.\n", numbers(r.Deleted))
	}
	for _, s := range r.Signers {
		fmt.Fprintf(&b, "Signed by %s, key %s: %d seals, %d receipts.\n", line(s.Host), s.KeyID, s.Seals, s.Receipts)
	}
	if r.Unsealed > 0 {
		fmt.Fprintf(&b, "Told by hosts and under no seal of theirs, or under none yet: %d.\n", r.Unsealed)
	}
	fmt.Fprintf(&b, "Sessions whose numbers were looked at: %d.\n", r.Sessions)
	if r.Terminals > 0 {
		fmt.Fprintf(&b, "Terminals whose segments were looked at: %d, of which %d had not ended.\n", r.Terminals, r.Open)
	}
	if r.Tapes > 0 {
		fmt.Fprintf(&b, "Segments of recordings that show what their hosts signed: %d.\n", r.Tapes)
	}
	if len(r.Erased) > 0 {
		fmt.Fprintf(&b, "What terminals showed was deleted, by the log's word, of the segments in entries %s.\n", numbers(r.Erased))
	}
	if len(r.Findings) == 0 {
		b.WriteString("VERIFIED: nothing was changed, left out or put in.\n")
		return b.String()
	}
	fmt.Fprintf(&b, "NOT VERIFIED, %d findings:\n", uint64(len(r.Findings))+r.More)
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "  %s\n", clean(f.String()))
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "  and %d more\n", r.More)
	}
	return b.String()
}

func numbers(all []ledger.Range) string {
	if len(all) == 0 {
		return "none"
	}
	var parts []string
	for _, r := range all {
		if r.From == r.To {
			parts = append(parts, fmt.Sprint(r.From))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", r.From, r.To))
		}
	}
	return strings.Join(parts, ", ")
}
