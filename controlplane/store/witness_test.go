package store

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"curfew.internal/controlplane/roster"
)

func TestWitnesses(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	const key = "witness.example+00000001+BAAA"
	if w, err := s.Witness(ctx, key); err != nil || w.Key != key || w.Name() != "witness.example" || w.Size != 0 || !w.Since.IsZero() {
		t.Errorf("of one that was not asked: %+v, %v", w, err)
	}
	made := roster.Witness{Key: key, Size: 3, Note: []byte("note"), At: noon}
	must(t, s.UpdateWitness(ctx, key, noon, func(roster.Witness) (roster.Witness, string, string) { return made, "", "" }))
	must(t, s.UpdateWitness(ctx, key, noon, func(was roster.Witness) (roster.Witness, string, string) {
		if was.Size != 3 || !bytes.Equal(was.Note, made.Note) || !was.At.Equal(noon) {
			t.Errorf("%+v", was)
		}
		was.Since, was.Why, was.Refuses, was.Told = noon.Add(time.Second), "no", true, true
		return was, roster.Refuses, "does not cosign"
	}))
	w, err := s.Witness(ctx, key)
	if err != nil || w.Size != 3 || !w.Refuses || !w.Told || w.Why != "no" || !w.Since.Equal(noon.Add(time.Second)) {
		t.Errorf("%+v, %v", w, err)
	}
	all, err := s.Events(ctx, roster.Search{Kind: "witness", Outcome: roster.Failed})
	if err != nil || len(all) != 1 || all[0].Entry.Object != "witness.example" || all[0].Entry.Step != "refuses" || all[0].Entry.Text != "does not cosign" {
		t.Errorf("%+v, %v", all, err)
	}
}

// tiled reads the store's tiles, as a client of the log does.
type tiled struct {
	t *testing.T
	*Store
}

func (tiled) Height() int { return 8 }

func (s tiled) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, t := range tiles {
		b, err := s.Tile(s.t.Context(), t)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

func (tiled) SaveTiles([]tlog.Tile, [][]byte) {}

func TestTilesAreThoseOfTheTree(t *testing.T) {
	s, ctx := fresh(t), t.Context()
	for range 600 {
		must(t, s.Tell(ctx, roster.Act{By: "ada", At: noon}, "said"))
	}
	now, err := s.Tree(ctx)
	must(t, err)
	size := int64(now.Size)
	read := tlog.TileHashReader(tlog.Tree{N: size, Hash: now.Root}, tiled{t, s})
	for _, n := range []int64{0, 255, 256, 511, size - 1} {
		p, err := tlog.ProveRecord(size, n, read)
		must(t, err)
		all, err := s.Proven(ctx, []uint64{uint64(n) + 1}, now.Size)
		must(t, err)
		must(t, tlog.CheckRecord(p, size, now.Root, n, tlog.RecordHash(all[0].Leaf)))
	}
	for name, tile := range map[string]tlog.Tile{
		"behind the end": {H: 8, L: 0, N: 3, W: 1}, "wider than it is": {H: 8, L: 0, N: 2, W: int(size) - 512 + 1}, "not whole yet": {H: 8, L: 0, N: 2, W: 256},
		"higher than the tree": {H: 8, L: 2, N: 0, W: 1}, "of a level that no tree has": {H: 8, L: 63, N: 0, W: 1}, "of a number that none has": {H: 8, L: 0, N: 1 << 62, W: 1},
	} {
		_, err := s.Tile(ctx, tile)
		want(t, name, err, roster.ErrUnknown)
	}
}
