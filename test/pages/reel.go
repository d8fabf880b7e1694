package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"curfew.internal/cast"
	"curfew.internal/clock"
	"curfew.internal/ledger"
)

// A reel is a recording of a terminal that a played host sends.
type reel struct {
	host *host
	next ledger.Segment // the statement that comes next, as far as it is known
}

// reel begins one, of the person of a live grant.
func (h *host) reel(id string) (*reel, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g, ok := h.live[id]
	if !ok {
		return nil, fmt.Errorf("%s does not stand on %s", id, h.id.Name)
	}
	h.programs++
	return &reel{host: h, next: ledger.Segment{
		Fleet: h.id.Fleet, Host: h.id.Name, Boot: "boot-" + h.id.Name, Grant: g.ID, Person: g.Person.Name, Session: h.programs,
		Terminal: fmt.Sprintf("%016x-%08x", h.programs, h.programs), From: clock.System{}.Now().Wall,
	}}, nil
}

// shows sends what was shown at so many seconds, in one segment.
func (r *reel) shows(ctx context.Context, at float64, texts ...string) error {
	h := cast.Header{Version: 2, Width: 80, Height: 24, Timestamp: r.next.From.Unix()}
	data := h.Bytes()
	for i, text := range texts {
		data = append(data, cast.Event{At: time.Duration((at + float64(i)) * float64(time.Second)), Kind: cast.Output, Data: text}.Bytes()...)
	}
	s := r.next
	sum := sha256.Sum256(data)
	s.Digest, s.Size = sum[:], uint64(len(data))
	return r.send(ctx, s, data)
}

// ends sends that it has ended.
func (r *reel) ends(ctx context.Context, why string) error {
	s := r.next
	s.End = why
	return r.send(ctx, s, nil)
}

func (r *reel) send(ctx context.Context, s ledger.Segment, data []byte) error {
	s.Number, s.To = r.next.Number+1, clock.System{}.Now().Wall
	envelope := s.Seal(r.host.id.ReceiptKey)
	r.next.Number, r.next.Before = s.Number, s.Hash()
	r.host.mu.Lock()
	r.host.tell(ledger.Entry{Kind: ledger.Terminal, Grant: s.Grant, Person: s.Person, Session: s.Session, Receipt: envelope, Text: fmt.Sprintf("%s segment %d", s.Terminal, s.Number)})
	r.host.mu.Unlock()
	return r.host.client.KeepTerminal(ctx, envelope, data)
}
