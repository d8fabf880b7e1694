package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"curfew.internal/agent/uplink"
	wire "curfew.internal/wire/uplink"
)

// A link is the agent's end of the stream, and what the world knows of it.
type link struct {
	client   *uplink.Client
	die      context.CancelFunc // of the agent's process
	alone    context.Context    // until the agent dies
	appended chan struct{}
	passed   bool // a pass was made, and the client was not told yet
	session  *cable
	dialAt   time.Duration

	laid     int
	cables   []*cable
	asked    []byte        // the set that was sent last on this stream
	taken    []byte        // the set that was accepted last
	sign     time.Duration // when the host last heard while it held what it was sent; negative: never
	written  time.Time     // the last sign of life, as the agent wrote it down
	farthest uint64        // number of an entry that was sent
	lastWord time.Time     // when any word of the control plane came
	wrong    error         // what was done that must never be
}

// connectable makes the client of an agent that starts.
func (w *world) connectable() error {
	w.alone, w.die = context.WithCancel(w.ctx)
	w.appended, w.passed = make(chan struct{}, 1), true
	w.dialAt = w.now
	before := w.written
	var err error
	w.client, err = uplink.New(uplink.Config{
		Server: "curfew.example:7444", Identity: uplink.Identity{Fleet: fleetName, Name: host, Certificate: hostLeaf.Raw},
		Host: acceptor{w}, Outbox: boxOf{w}, Appended: w.appended, Facts: func() uplink.Facts { return uplink.Facts{} },
		Now: w.keepTime, Told: w.told, Unsure: w.agent.Unsure, Clock: ticking{clockOf{w}, w, "host"},
	})
	if err != nil {
		return err
	}
	w.agent.Heard = func() time.Time {
		if w.bug == "any word renews a lease" && !w.lastWord.IsZero() {
			return w.lastWord
		}
		if last := w.client.LastHeard(); !last.IsZero() {
			return last
		}
		return before
	}
	return nil
}

// dial has the agent connect, if it is time to.
func (w *world) dial() bool {
	if w.agent == nil || w.session != nil || w.cut || w.now < w.dialAt {
		return false
	}
	w.dialAt = w.now + time.Hour // or sooner, when the talk is over
	w.asked = nil
	client, alone := w.client, w.alone
	go func() {
		err := client.Talk(alone, network{w}, func() {})
		_ = w.take(alone, &turn{who: "the talk is over", first: true, do: func() {
			w.tell("the stream ends: %v", err)
			w.unplug()
			w.dialAt = w.now + time.Duration(w.chance.IntN(30_000))*time.Millisecond
		}})
	}()
	return true
}

// poked passes on what the agent's parts would tell the client by themselves:
// while the world stands still, so that what it says of the host is all of one
// moment.
func (w *world) poked() bool {
	if w.agent == nil {
		return false
	}
	if w.passed {
		w.passed = false
		w.client.Report()
		return true
	}
	select {
	case <-w.keep.Outbox().Appended():
	default:
		return false
	}
	select {
	case w.appended <- struct{}{}:
	default: // told, and not heard yet
	}
	return true
}

// heardOf is a message of the control plane as it reaches the agent.
func (w *world) heardOf(d *wire.Down) {
	if s := d.GetState(); s != nil {
		w.asked = s.GetSet()
	}
	w.lastWord = w.keepTime()
	w.signOfLife()
}

// signOfLife notes a sign of life, if the host holds what it was sent last.
func (w *world) signOfLife() {
	if w.asked != nil && bytes.Equal(w.asked, w.taken) {
		w.sign = w.now
	}
}

// acceptor is the agent, as the client hands it sets. It may be slow.
type acceptor struct{ *world }

func (a acceptor) Accept(ctx context.Context, keyring, set []byte) (revision uint64, err error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	late := time.Duration(-1)
	ready := func() bool {
		if late < 0 {
			if late = a.now; !a.calm && a.chance.IntN(8) == 0 {
				late += time.Duration(a.chance.IntN(15_000)) * time.Millisecond
			}
		}
		return a.now >= late
	}
	gone := a.take(a.alone, &turn{who: "a set", agent: true, ready: ready, do: func() {
		a.next = a.now
		revision, err = a.agent.Accept(ctx, keyring, set)
		a.tell("the host takes a set: revision %d, %v", revision, err)
		if err == nil {
			a.reached = max(a.reached, revision)
			a.taken = set
			a.signOfLife()
		} else if a.bug == "what is refused is held" {
			err = nil
		}
	}})
	if gone != nil {
		return 0, gone
	}
	return revision, err
}

func (a acceptor) Versions() (revision, keyring uint64) { return a.keep.Versions() }
func (a acceptor) Settled() bool                        { return a.agent.Settled() }

// told passes on what the control plane's clock said.
func (w *world) told(ctx context.Context, at time.Time, age time.Duration) {
	if w.bug == "every word is an answer" {
		age = 0
	}
	_ = w.take(w.alone, &turn{who: "the time", agent: true, do: func() {
		before := w.keepTime()
		w.agent.Told(ctx, at, age)
		after := w.keepTime()
		if !after.Equal(before) {
			w.tell("time was put right by %v", before.Sub(after))
			w.next = w.now
		}
		w.off = min(w.off, max(0, w.true().Sub(after))) // that much is known now
	}})
}

// boxOf is the real outbox.
type boxOf struct{ *world }

func (b boxOf) Name() string { return b.keep.Outbox().Name() }

func (b boxOf) Next(after uint64, most int) (first uint64, entries [][]byte, err error) {
	gone := b.take(b.alone, &turn{who: "what is next", first: true, agent: true, do: func() {
		if b.bug == "goes on from what it sent" {
			after = max(after, b.farthest)
		}
		first, entries, err = b.keep.Outbox().Next(after, most)
		if n := uint64(len(entries)); n > 0 && b.bug == "what is sent is dropped" {
			err = errors.Join(err, b.keep.Outbox().Kept(first+n-1, false))
		}
		b.farthest = max(b.farthest+1, first+uint64(len(entries))) - 1
	}})
	if gone != nil {
		return 0, nil, gone
	}
	return first, entries, err
}

func (b boxOf) Kept(upTo uint64, first bool) (err error) {
	gone := b.take(b.alone, &turn{who: "what is kept", agent: true, do: func() {
		b.change()
		err = b.keep.Outbox().Kept(upTo, first)
		b.change()
	}})
	if gone != nil {
		return gone
	}
	return err
}

// leased reports whether the lease of a grant can still hold, so long after it
// ran out by true time: the host heard the control plane, and held what that
// wanted it to, a lease ago at most.
func (w *world) leased(g *issued, late time.Duration) bool {
	return g.Lease == 0 || w.sign >= 0 && w.now-w.sign < g.Lease+w.slack()+late
}

// checkPutRight: an answer puts the time right, and nothing else does. It says
// at least what the time is, and little more. (A question at the very start of
// the machine is numbered one and not zero: a nanosecond.)
func (w *world) checkPutRight(now time.Time) {
	if off := now.Sub(w.true()); off < -time.Nanosecond || off > tolerance {
		w.wrong = fmt.Errorf("trusted time is put %v off", off)
	}
}

// slip puts a set among what the control plane says.
func (w *world) slip(set []byte) {
	b, err := proto.Marshal(&wire.Down{Says: &wire.Down_State{State: &wire.State{Keyring: ring, Set: set}}})
	if err != nil {
		panic(err)
	}
	if w.session != nil && !w.session.plane.gone {
		w.session.host.arrive(parcel{body: b})
	}
}
