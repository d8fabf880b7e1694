package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/mod/sumdb/tlog"

	"curfew.internal/ledger"
	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
)

// known is what this computer remembers of a fleet's log, in log-FLEET.json:
// its key, as it was first seen, and the newest checkpoint.
type known struct {
	Key  string `json:"key"`
	Note string `json:"checkpoint"`
}

// errSetBack is the class of logs that do not hold what they held.
var errSetBack = errors.New("ALERT: the record is not what it was")

func (p *program) logFile(fleet string) (string, error) {
	dir, err := p.dir()
	return filepath.Join(dir, "log-"+fleet+".json"), err
}

// knownLog returns what is remembered; empty: nothing yet.
func (p *program) knownLog(fleet string) (known, error) {
	var k known
	name, err := p.logFile(fleet)
	if err != nil {
		return k, err
	}
	b, err := os.ReadFile(name) //nolint:gosec // the folder is the person's own
	if errors.Is(err, os.ErrNotExist) {
		return k, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil {
		return k, fmt.Errorf("read %s: %w", name, err)
	}
	return k, nil
}

// lookAtLog asks how the log stands, compares that with the newest that this
// computer knows, and remembers it. It returns the signed note.
func (p *program) lookAtLog(ctx context.Context, c apiconnect.CurfewClient, q *api.GetCheckpointRequest) (*api.GetCheckpointReply, error) {
	s, err := p.loadSession()
	if err != nil {
		return nil, err
	}
	was, err := p.knownLog(s.Fleet)
	if err != nil {
		return nil, err
	}
	if was.Note != "" {
		old, err := was.open()
		if err != nil {
			return nil, err
		}
		q.From = old.Size
	}
	r, err := c.GetCheckpoint(ctx, q)
	if err != nil {
		return nil, err
	}
	now, err := was.next(s.Fleet, r)
	if err != nil {
		name, _ := p.logFile(s.Fleet)
		return nil, fmt.Errorf("%w. %s is your evidence: keep it, and tell the auditors. If an admin restored a backup and you accept what was lost, move that file away", err, name)
	}
	if was.Key == "" {
		if _, err := fmt.Fprintf(p.err, "This computer now knows the log of %s by its key: %s\nCompare it with what `curfew-server log-key` prints.\n", s.Fleet, now.Key); err != nil {
			return nil, err
		}
	}
	b, err := json.MarshalIndent(now, "", "  ")
	if err != nil {
		return nil, err
	}
	return r, p.save("log-"+s.Fleet+".json", b)
}

func (k known) open() (ledger.Checkpoint, error) {
	key, err := ledger.ParseKey(k.Key)
	if err != nil {
		return ledger.Checkpoint{}, err
	}
	return ledger.OpenCheckpoint([]byte(k.Note), key)
}

// next is what to remember after the server's answer, if that goes on from
// what is remembered.
func (k known) next(fleet string, r *api.GetCheckpointReply) (known, error) {
	if k.Key == "" {
		k.Key = r.Key // trusted when it is first seen
	}
	key, err := ledger.ParseKey(k.Key)
	if err != nil {
		return k, err
	}
	if key.Fleet != fleet {
		return k, fmt.Errorf("the log's key is of fleet %q, not of %q", key.Fleet, fleet)
	}
	now, err := ledger.OpenCheckpoint(r.Note, key)
	if err != nil {
		return k, fmt.Errorf("%w: %w", errSetBack, err)
	}
	var was ledger.Checkpoint
	if k.Note != "" {
		if was, err = k.open(); err != nil {
			return k, err
		}
	}
	proof, err := hashesOf(r.Growth)
	if err == nil {
		err = ledger.Grew(was.Tree, now.Tree, proof)
	}
	if err != nil {
		return k, fmt.Errorf("%w: %w", errSetBack, err)
	}
	k.Note = string(r.Note)
	return k, nil
}

func hashesOf(all [][]byte) (tlog.TreeProof, error) {
	var p tlog.TreeProof
	for _, b := range all {
		if len(b) != tlog.HashSize {
			return nil, errors.New("the server's proof holds what is no hash")
		}
		p = append(p, tlog.Hash(b))
	}
	return p, nil
}

type checkpointCmd struct {
	Key bool `help:"Print the log's key, as this computer knows it, for \"curfew verify --key\"."`
}

// Run prints the checkpoint as it was signed.
func (c checkpointCmd) Run(ctx context.Context, p *program) error {
	client, err := p.client()
	if err != nil {
		return err
	}
	r, err := p.lookAtLog(ctx, client, &api.GetCheckpointRequest{Cosigned: true})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		if !c.Key {
			_, err := p.out.Write(r.Note)
			return err
		}
		_, err := fmt.Fprintln(p.out, r.Key)
		return err
	})
}

type witnessesCmd struct{}

// Run prints who cosigns the log, and who does not.
func (witnessesCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := p.lookAtLog(ctx, c, &api.GetCheckpointRequest{Cosigned: true})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		rows := [][]string{}
		for _, w := range r.Witnesses {
			name, _, _ := strings.Cut(w.Key, "+")
			state := "cosigns"
			if w.Since != nil {
				state = "silent since " + at(w.Since) + ": " + w.Why
			}
			if w.Refuses {
				state = "REFUSES" + strings.TrimPrefix(state, "silent")
			}
			rows = append(rows, []string{name, fmt.Sprint(w.Size), at(w.At), state})
		}
		return table(p.out, "WITNESS ENTRIES COSIGNED STATE", rows)
	})
}

type exportCmd struct {
	File  string `arg:"" type:"path" help:"The bundle to write."`
	Grant string `xor:"what" required:"" placeholder:"ID" help:"What there is about one grant, or its request."`
	Since when   `xor:"what" required:"" placeholder:"TIME" help:"Every entry from the first of that time on: 2027-01-31T14:00:00Z, or 30m, 2h, 7d for so long ago; for admins."`
	All   bool   `xor:"what" required:"" help:"Every entry; for admins."`
	From  string `type:"existingfile" placeholder:"FILE" help:"A checkpoint that you kept: the bundle then proves that the log goes on from it."`

	Recordings bool `help:"Take along what terminals showed: curfew verify holds each segment against what its host signed."`
}

// Run writes what the server sends, whole or not at all.
func (e exportCmd) Run(ctx context.Context, p *program) error {
	q := &api.ExportRecordRequest{Grant: e.Grant, Since: e.Since.before(p.clock.Now().Wall), Recordings: e.Recordings}
	if e.From != "" {
		var err error
		if q.Older, err = os.ReadFile(e.From); err != nil {
			return err
		}
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	if _, err := p.lookAtLog(ctx, c, &api.GetCheckpointRequest{}); err != nil {
		return err
	}
	s, err := c.ExportRecord(ctx, q)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // s.Err tells
	f, err := renameio.NewPendingFile(e.File, renameio.WithPermissions(0o600))
	if err != nil {
		return err
	}
	defer f.Cleanup() //nolint:errcheck // it is of no use then
	for s.Receive() {
		if _, err := f.Write(s.Msg().Data); err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil {
		return err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.err, "Written to %s. To check it: curfew verify %s --key KEY\n", e.File, e.File)
	return err
}
