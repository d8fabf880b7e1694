package api

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// errProve is the refusal of a request that brings no proof and has none to
// stand on. It costs no try: nothing was guessed.
var errProve = roster.Refuse(roster.Stale, "prove yourself for this: with a code of your second factor, or with your passkey on the pages")

// forRequest is what a proof is for that was made for a request.
const forRequest = "request"

// counting says for which call a proof is, if a later request may stand on it;
// empty for what lets somebody in, changes factors, or lends a word.
func counting(m proving) string {
	switch m.(type) {
	case *api.CreateRequestRequest:
		return forRequest
	case *api.ExtendRequest:
		return "extension"
	case *api.ApproveRequest:
		return "approval"
	}
	return ""
}

// brings reports whether the call has a proof of its own.
func brings(m proving) bool { return m.GetCode() != "" || len(m.GetAssertion()) > 0 }

// fresh reports whether a request may stand on a proof of that age. Where
// nobody approves, or people's own keys sign, none may, whatever the policy was
// read to say; nor may one be younger than none.
func fresh(v roster.Verdict, age time.Duration) bool {
	return v.Needed > 0 && !v.Role.Signed && age >= 0 && age < min(v.Fresh, roster.ProofLife)
}

// earlier has a request of the caller's that brings no proof of its own stand on
// an earlier one; on none that was made since she asked, which nobody could
// approve. An extension stands on none: it goes on with what is there already,
// and her finger is all that keeps it from going on by itself.
func (s *Server) earlier(ctx context.Context, r *roster.Request, v roster.Verdict) error {
	if v.Fresh == 0 || r.Extends != "" {
		return errProve
	}
	p, err := s.lastProof(ctx)
	if err != nil {
		return err
	}
	if p == nil || p.At.After(r.AskedAt) || !fresh(v, s.latest().Sub(p.At)) {
		return errProve
	}
	r.Proof, r.Factor = p, "earlier "+p.Factor
	return nil
}

// lastProof is the caller's last on this session on which a request of hers
// could stand; nil if there is none.
func (s *Server) lastProof(ctx context.Context) (*roster.Proof, error) {
	p, err := s.Store.LastProof(ctx, who(ctx).session.ID, roster.NetworkOf(source(ctx)))
	if is(err, roster.ErrUnknown) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err == nil && (s.now().Before(p.At) || s.latest().Sub(p.At) >= roster.ProofLife) {
		return nil, nil //nolint:nilnil // it is too old, or the clock was set back behind it
	}
	return &p, err
}

// provenText tells for the record how the person of a request proved herself.
func provenText(r roster.Request) string {
	if p := r.Proof; p != nil {
		return "did not prove herself anew: " + proofText(*p, r.AskedAt)
	}
	return "proved herself with " + r.Factor + typedOn(r.Origin)
}

// proofText tells of an earlier proof.
func proofText(p roster.Proof, now time.Time) string {
	what := "an " + p.For
	if p.For == forRequest {
		what = "an earlier request"
	}
	return fmt.Sprintf("proved with %s %v before, for %s", p.Factor, now.Sub(p.At).Round(time.Second), what)
}

func proofMessage(p *roster.Proof) *api.Proof {
	if p == nil {
		return nil
	}
	return &api.Proof{Factor: p.Factor, At: timestamppb.New(p.At), For: p.For}
}

// A forward clock is one that was never set back, as far as this server has
// seen: it goes on by the time since boot from the latest that the wall clock
// showed. One that was ahead for a while leaves proofs older than they are, until
// the server starts anew.
type forward struct {
	mu     sync.Mutex // guards what follows
	offset time.Time  // of the time since boot; the latest
}

func (f *forward) see(r clock.Reading) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o := r.BootOffset(); o.After(f.offset) {
		f.offset = o
	}
	return f.offset.Add(r.Boot)
}

// latest is the time by which a proof is as old as it is.
func (s *Server) latest() time.Time { return s.seen.see(s.Clock.Now()) }
