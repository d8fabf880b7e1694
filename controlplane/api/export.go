package api

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
)

// exportAtOnce is how many entries of an export are in memory, and in a part.
const exportAtOnce = 200

// GetCheckpoint implements the API. It says nothing of what the record holds,
// so it is for everybody who is signed in: the more keep one, the better.
func (s *Server) GetCheckpoint(ctx context.Context, m *api.GetCheckpointRequest) (*api.GetCheckpointReply, error) {
	look := s.Ledger.Checkpoint
	if m.Cosigned {
		look = s.Ledger.Cosigned
	}
	c, note, err := look(ctx)
	if err != nil {
		return nil, err
	}
	reply := &api.GetCheckpointReply{Note: note, Key: s.Ledger.Key().String()}
	if reply.Witnesses, err = s.witnesses(ctx); err != nil {
		return nil, err
	}
	if m.From >= c.Size {
		return reply, nil // the caller sees for herself whether it is smaller
	}
	proof, err := s.Store.Growth(ctx, m.From, c.Size)
	for _, h := range proof {
		reply.Growth = append(reply.Growth, h[:])
	}
	return reply, err
}

// witnesses is what is known of those who cosign the log.
func (s *Server) witnesses(ctx context.Context) ([]*api.Witness, error) {
	known, err := s.Ledger.Witnesses(ctx)
	var all []*api.Witness
	for _, w := range known {
		m := &api.Witness{Key: w.Key, Size: w.Size, Why: w.Why, Refuses: w.Refuses}
		if !w.At.IsZero() {
			m.At = timestamppb.New(w.At)
		}
		if !w.Since.IsZero() {
			m.Since = timestamppb.New(w.Since)
		}
		all = append(all, m)
	}
	return all, err
}

// ExportRecord implements the API.
func (s *Server) ExportRecord(ctx context.Context, m *api.ExportRecordRequest, stream *connect.ServerStream[api.ExportPart]) error {
	q, asked, err := s.selection(ctx, m)
	if err != nil {
		return err
	}
	if m.Recordings {
		asked += ", with recordings"
	}
	now, note, err := s.Ledger.Cosigned(ctx)
	if err != nil {
		return err
	}
	b := ledger.Bundle{Checkpoint: note}
	if err := s.goesOn(ctx, &b, m.Older, now); err != nil {
		return err
	}
	numbers, err := s.Store.Selected(ctx, q, now.Size)
	if err != nil {
		return err
	}
	deleted, err := s.Store.Deleted(ctx, now.Size)
	if err != nil {
		return err
	}
	deleted = slices.DeleteFunc(deleted, func(n uint64) bool { return !among(numbers, n) })
	manifest := ledger.Manifest{
		Tree: now.Tree, Fleet: now.Fleet, Asked: asked, Numbers: ledger.Ranges(numbers), Deleted: ledger.Ranges(deleted), Tapes: m.Recordings,
	}
	var tapes map[uint64]ledger.Segment
	if m.Recordings {
		var erased []uint64
		if tapes, erased, err = s.Store.Tapes(ctx, numbers); err != nil {
			return err
		}
		manifest.Erased = ledger.Ranges(erased)
	}
	b.Manifest = s.Ledger.Manifest(manifest)
	s.Log.InfoContext(ctx, "record exported", "asked", asked, "entries", len(numbers), "by", who(ctx).Name)
	if err := s.Store.Tell(ctx, roster.Act{By: who(ctx).Name, At: s.Clock.Now().Wall}, "exported %d entries of the record: %s", len(numbers), asked); err != nil {
		return err
	}
	if err := stream.Send(&api.ExportPart{Data: b.Bytes()}); err != nil {
		return err
	}
	if err := s.sendProven(ctx, numbers, deleted, now.Size, stream); err != nil {
		return err
	}
	return s.sendTapes(ctx, tapes, stream)
}

// sendTapes sends what segments show. One that is gone, and was not deleted, is
// missing in the bundle: whoever verifies it sees that.
func (s *Server) sendTapes(ctx context.Context, tapes map[uint64]ledger.Segment, stream *connect.ServerStream[api.ExportPart]) error {
	for _, n := range slices.Sorted(maps.Keys(tapes)) {
		v := tapes[n]
		data := s.shown(ctx, roster.Terminal{Host: v.Host, ID: v.Terminal}, roster.Segment{Number: v.Number, Digest: v.Digest})
		if data == nil {
			continue
		}
		if err := stream.Send(&api.ExportPart{Data: ledger.Tape{Number: n, Data: data}.Bytes()}); err != nil {
			return err
		}
	}
	return nil
}

// mayTake refuses recordings to who may see a request, and not what was done
// under it: who asked, who approved, and admins may.
func mayTake(c roster.Person, r roster.Request) error {
	if c.Admin || r.Person == c.Name || slices.ContainsFunc(r.Approvals, func(a roster.Approval) bool { return a.Person == c.Name }) {
		return nil
	}
	return roster.Refuse(roster.Denied, "recordings are for who asked, for who approved, and for admins: export without --recordings")
}

// among reports whether a number is among ascending ones.
func among(numbers []uint64, n uint64) bool {
	_, is := slices.BinarySearch(numbers, n)
	return is
}

func (s *Server) sendProven(ctx context.Context, numbers, deleted []uint64, size uint64, stream *connect.ServerStream[api.ExportPart]) error {
	for len(numbers) > 0 {
		n := min(len(numbers), exportAtOnce)
		records, err := s.Store.Proven(ctx, numbers[:n], size)
		if err != nil {
			return err
		}
		var part []byte
		for i, r := range records {
			if len(r.Leaf) == 0 && !among(deleted, numbers[i]) {
				return roster.Refuse(roster.Conflict, "what entry %d told was deleted while it was exported: export again", numbers[i])
			}
			part = append(part, r.Bytes()...)
		}
		if err := stream.Send(&api.ExportPart{Data: part}); err != nil {
			return err
		}
		numbers = numbers[n:]
	}
	return nil
}

// selection says what is to be exported, to the program and in words.
func (s *Server) selection(ctx context.Context, m *api.ExportRecordRequest) (roster.Selection, string, error) {
	if m.Grant != "" {
		r, err := s.find(ctx, m.Grant)
		if err != nil {
			return roster.Selection{}, "", err
		}
		if m.Recordings {
			if err := mayTake(who(ctx).Person, r); err != nil {
				return roster.Selection{}, "", err
			}
		}
		q := roster.Selection{Request: r.ID}
		if r.Grant != nil {
			q.Grant = r.Grant.ID
		}
		return q, fmt.Sprintf("request %s, grant %s", q.Request, q.Grant), nil
	}
	if err := admin(ctx); err != nil {
		return roster.Selection{}, "", err
	}
	if m.Since == nil {
		return roster.Selection{}, "every entry", nil
	}
	since := m.Since.AsTime()
	return roster.Selection{Since: since}, "every entry from the first of " + since.Format(time.RFC3339Nano) + " on", nil
}

// goesOn adds the proof that the log goes on from an earlier checkpoint.
func (s *Server) goesOn(ctx context.Context, b *ledger.Bundle, older []byte, now ledger.Checkpoint) error {
	if len(older) == 0 {
		return nil
	}
	was, err := ledger.OpenCheckpoint(older, s.Ledger.Key())
	if err != nil {
		return roster.Refuse(roster.Invalid, "the earlier checkpoint is not one of this fleet's log: %v", err)
	}
	if was.Size > now.Size {
		return roster.Refuse(roster.Conflict, "the earlier checkpoint is of %d entries, and the log has %d: it was set back. Keep that file, and tell the auditors", was.Size, now.Size)
	}
	b.Older = older
	b.Growth, err = s.Store.Growth(ctx, was.Size, now.Size)
	return err
}
