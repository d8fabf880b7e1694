package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"curfew.internal/agent/record"
	"curfew.internal/agent/uplink"
	"curfew.internal/cast"
	"curfew.internal/grant"
	"curfew.internal/ledger"
	"curfew.internal/wire/terminal"
)

// How often the folder of recordings is looked at, and how long a control
// plane is let be that could not take a segment, or would not take a recording.
const (
	terminalsEvery = 300 * time.Millisecond
	terminalsAgain = 2 * time.Second
	refusedAgain   = time.Minute
)

// Terminals are the recordings of this host: what is recorded is signed for,
// put into the record, and sent.
type Terminals struct {
	Spool record.Spool
	Quota int64
	// Send hands a segment to the control plane.
	Send func(ctx context.Context, statement, data []byte) error

	// Of the loop alone: before when nothing is sent, since boot, and nothing
	// of a recording that was refused.
	retry   time.Duration
	refused map[string]time.Duration

	mu      sync.Mutex // guards what follows
	watched []uint64   // sessions that somebody looks at
	ended   map[uint64]string
}

// State takes what the control plane says of sessions: which are looked at,
// and which somebody ended, with who did.
func (t *Terminals) State(watched []uint64, ended map[uint64]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watched, t.ended = watched, ended
}

// desk says who logs in, and what is recorded of it. The kernel's label alone
// tells whose process that is.
func (a *Agent) desk(t *Terminals) func(ctx context.Context, q terminal.Question) terminal.Answer {
	return func(ctx context.Context, q terminal.Question) terminal.Answer {
		id, ok, err := a.Labels.LabelOf(q.PID)
		if err != nil {
			a.Log.ErrorContext(ctx, "login not known", "pid", q.PID, "err", err)
			return terminal.Answer{Refused: "this host cannot tell under which grant you log in: ask an administrator to run `curfew-agent status`"}
		}
		s, known := a.session(id)
		g, granted := find(a.known(), s.Grant)
		if !ok || !known || !granted {
			return terminal.Answer{Refused: "this login stands under no grant: ask with `curfew request`"}
		}
		answer := terminal.Answer{
			Session: s.ID, Grant: s.Grant, Person: s.Person, Role: g.Role.Name, Boot: a.Boot,
			Unseen: g.Role.Unseen, Typed: g.Role.Typed, Strict: g.Role.Strict, Quota: t.Quota,
		}
		text := untold(g.Role, q.Terminal)
		if text == "" {
			if err := t.Spool.Room(); err != nil {
				a.Log.ErrorContext(ctx, "a terminal cannot be recorded", "session", sessionName(s.ID), "err", err)
				text, answer.Unseen = "there is no room on the host to record this terminal", true
			}
		}
		switch {
		case g.Role.Strict && !q.Terminal:
			answer.Refused = "role " + g.Role.Name + " is for sessions with a terminal, which is recorded: log in with `ssh -t`"
		case g.Role.Strict && answer.Unseen:
			answer.Refused = "this host has no room to record your terminal, which role " + g.Role.Name + " demands: ask an administrator to run `curfew-agent doctor`"
		}
		if answer.Refused != "" {
			text = "refused: " + text
		}
		// Once: she can ask as often as she likes.
		if text != "" && a.news(saidOf(s.ID), text) {
			a.append(s.entry(ledger.Terminal, a.Clock.Now().Wall, text))
		}
		return answer
	}
}

func saidOf(session uint64) string { return "terminal of " + sessionName(session) }

// untold says what of a session is not recorded.
func untold(r grant.Role, tty bool) string {
	switch {
	case !tty:
		return "a session without a terminal: what goes in and out of it is not recorded, its programs are"
	case r.Unseen:
		return "the role says that terminals are not recorded"
	}
	return ""
}

// terminals looks after the recordings until ctx is done.
func (a *Agent) terminals(ctx context.Context, t *Terminals) error {
	for {
		err := a.takeTerminals(ctx, t)
		if text := fmt.Sprint(err); err != nil && ctx.Err() == nil && a.news("terminals", text) {
			a.Log.WarnContext(ctx, "recordings are kept on this host for now", "err", err)
		}
		a.endTold(ctx, t)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.Clock.After(terminalsEvery):
		}
	}
}

func (a *Agent) takeTerminals(ctx context.Context, t *Terminals) error {
	all, err := t.Spool.Recordings()
	errs := []error{err}
	for _, r := range all {
		t.mu.Lock()
		watched := slices.Contains(t.watched, r.Session)
		t.mu.Unlock()
		if err := errors.Join(r.Watch(watched), a.sign(ctx, r), a.hand(ctx, t, r)); err != nil {
			errs = append(errs, fmt.Errorf("recording %s: %w", r.ID, err))
		}
	}
	return errors.Join(errs...)
}

// sign signs for what is whole of a recording, and tells the record.
func (a *Agent) sign(ctx context.Context, r *record.Recording) error {
	if r.State.Ended {
		return nil
	}
	dead := !r.Alive()
	if dead {
		if err := r.Salvage(); err != nil {
			return err
		}
	}
	numbers, err := r.Sealed()
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if n <= r.State.Stated {
			continue
		}
		if n != r.State.Stated+1 {
			break // the one before is on its way to disk
		}
		s, envelope := a.signed(r, n)
		if envelope == nil { // one that waits for room in the record is not read again and again
			if s, err = a.whole(ctx, r, n); err != nil {
				return err
			}
		}
		if err := a.state(r, s); err != nil {
			return err
		}
	}
	if !dead {
		return nil
	}
	return a.signEnd(ctx, r)
}

// signEnd signs for a recording's end. One without a word of its recorder ends
// the session: somebody took its recorder away.
func (a *Agent) signEnd(ctx context.Context, r *record.Recording) error {
	end, told := r.End()
	switch {
	case !told:
		end = record.End{At: a.Clock.Now().Wall, Why: "its recorder was ended: what it showed last may be missing"}
		a.cutOff(ctx, r, "the recorder of its terminal was ended")
	case end.Cut:
		a.cutOff(ctx, r, "its terminal could not be recorded any more, which its role demands")
	}
	return a.state(r, ledger.Segment{To: end.At, Lost: end.Lost, End: end.Why})
}

// whole is the statement on a segment that is whole, but for what it is about.
func (a *Agent) whole(ctx context.Context, r *record.Recording, n uint64) (ledger.Segment, error) {
	data, err := r.Segment(n)
	if err != nil {
		return ledger.Segment{}, err
	}
	at, err := r.Sealing(n)
	if err != nil {
		return ledger.Segment{}, err
	}
	_, events, broken := cast.Read(bytes.NewReader(data))
	if broken != nil {
		a.Log.ErrorContext(ctx, "a recording is broken, and is sent as it is", "recording", r.ID, "segment", n, "err", broken)
	}
	return segment(data, at, cast.Lost(events)), nil
}

// segment is the statement on data, but for what it is about.
func segment(data []byte, at time.Time, lost uint64) ledger.Segment {
	sum := sha256.Sum256(data)
	return ledger.Segment{Digest: sum[:], Size: uint64(len(data)), To: at, Lost: lost}
}

// signed is the statement of a number that was signed before; without an envelope
// there is none.
func (a *Agent) signed(r *record.Recording, n uint64) (s ledger.Segment, envelope []byte) {
	public, _ := a.ReceiptKey.Public().(ed25519.PublicKey) // it is no other
	envelope, err := r.Statement(n)
	if err == nil {
		s, err = ledger.OpenSegment(envelope, public)
	}
	if err != nil {
		return ledger.Segment{}, nil
	}
	return s, envelope
}

// state signs a statement and puts it into the record. A crash in between
// tells it twice, in the same bytes. Where the record has no room it waits, and
// its segment with it: were it lost, those after it would go on from nothing.
func (a *Agent) state(r *record.Recording, s ledger.Segment) error {
	s.Fleet, s.Host, s.Boot, s.Grant, s.Person, s.Session = a.Fleet, a.Name, r.Boot, r.Grant, r.Person, r.Session
	s.Terminal, s.Number, s.From, s.Before = r.ID, r.State.Stated+1, r.Started, r.State.Before
	was, envelope := a.signed(r, s.Number)
	if envelope != nil {
		s = was
	} else {
		envelope = s.Seal(a.ReceiptKey)
		if err := r.Sign(s.Number, envelope); err != nil {
			return err
		}
	}
	e := ledger.Entry{
		Kind: ledger.Terminal, At: s.To, Grant: r.Grant, Person: r.Person, Session: r.Session, Lost: s.Lost, Receipt: envelope,
		Text: fmt.Sprintf("%s segment %d, %d bytes", s.Terminal, s.Number, s.Size),
	}
	if x, ok := a.session(r.Session); ok {
		e.Approvers, e.Service = x.Approvers, x.Service
	}
	if s.End != "" {
		e.Text = s.Terminal + " ended: " + s.End
	}
	a.stamp(&e)
	if err := a.Keep.Offer(e); err != nil {
		return fmt.Errorf("put segment %d into the record: %w", s.Number, err)
	}
	r.State.Stated, r.State.Before, r.State.Ended = s.Number, s.Hash(), s.End != ""
	return r.Save()
}

// hand sends what was signed for, in order, and removes what was taken.
func (a *Agent) hand(ctx context.Context, t *Terminals, r *record.Recording) error {
	now := a.Clock.Now().Boot
	if now < t.retry || now < t.refused[r.ID] {
		return nil
	}
	for n := r.State.Taken + 1; n <= r.State.Stated; n++ {
		envelope, err := r.Statement(n)
		if err != nil {
			return err
		}
		data, err := r.Segment(n)
		if errors.Is(err, fs.ErrNotExist) && n == r.State.Stated && r.State.Ended {
			data, err = nil, nil // the end has none
		}
		if err == nil {
			err = t.Send(ctx, envelope, data)
		}
		switch {
		case errors.Is(err, uplink.ErrRefused) && r.State.Ended:
			delete(t.refused, r.ID)
			return a.refusedRecording(ctx, r, err)
		case errors.Is(err, uplink.ErrRefused): // the others are not to wait for it
			t.refused[r.ID] = now + refusedAgain
			return fmt.Errorf("send segment %d: %w", n, err)
		case err != nil:
			t.retry = now + terminalsAgain
			return fmt.Errorf("send segment %d: %w", n, err)
		}
		r.State.Taken = n
		if err := errors.Join(r.Save(), r.Drop(n)); err != nil {
			return err
		}
	}
	if r.State.Ended {
		return r.Remove()
	}
	return nil
}

// refusedRecording lets go of what nobody takes, as after the host enrolled
// anew: the record says what is missing.
func (a *Agent) refusedRecording(ctx context.Context, r *record.Recording, why error) error {
	a.Log.ErrorContext(ctx, "a recording is given up", "recording", r.ID, "err", why)
	a.append(ledger.Entry{
		Kind: ledger.Gap, At: a.Clock.Now().Wall, Grant: r.Grant, Person: r.Person, Session: r.Session,
		Text: fmt.Sprintf("terminal %s from segment %d on: %.300v", r.ID, r.State.Taken+1, why),
	})
	return r.Remove()
}

// cutOff ends a session at once, and the sudo calls on its terminal.
func (a *Agent) cutOff(ctx context.Context, r *record.Recording, why string) {
	var over []uint64
	for _, s := range a.sessionsNow() {
		if s.ID == r.Session || s.Kind == SudoSession && s.Person == r.Person && r.Of(s.TTY) {
			over = append(over, s.ID)
		}
	}
	if len(over) == 0 {
		return
	}
	ctx, cancel := a.budget().turn(ctx)
	defer cancel()
	killed, left, err := a.Labels.Kill(ctx, over)
	if err != nil {
		a.Log.ErrorContext(ctx, "session not ended", "session", sessionName(r.Session), "err", err)
		return
	}
	for _, id := range over {
		if s, known := a.session(id); known && killed[id]+len(left[id]) > 0 {
			a.append(s.entry(ledger.Logout, a.Clock.Now().Wall, fmt.Sprintf("%s; %d processes were ended", why, killed[id])))
		}
	}
}

// endTold ends the sessions that somebody ended at the control plane.
func (a *Agent) endTold(ctx context.Context, t *Terminals) {
	t.mu.Lock()
	ended := t.ended
	t.mu.Unlock()
	if len(ended) == 0 {
		return
	}
	living, err := a.Labels.Living()
	all, rerr := t.Spool.Recordings()
	if err := errors.Join(err, rerr); err != nil {
		a.Log.WarnContext(ctx, "sessions not looked at", "err", err)
	}
	for _, r := range all {
		if by, is := ended[r.Session]; is && len(living[r.Session]) > 0 {
			a.cutOff(ctx, r, "ended by "+by+", who watched it")
		}
	}
}
