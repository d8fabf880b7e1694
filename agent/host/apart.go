package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/host/remains"
	"curfew.internal/clock"
)

// A file system can keep whoever asks it waiting for ever, beyond any signal: a
// disk that hangs, and one that root froze, or mounted on top of a program of
// hers. So places that are not ours alone are looked at, and cleared, by a
// process of its own, which is given up where it is not answered. The agent
// stays: with one thread that waits so, it could be neither ended nor replaced.
const (
	brisk    = 5 * time.Second        // for what a pass of the loop waits for
	lasting  = 50 * time.Second       // for what nobody waits for
	silence  = 10 * time.Second       // without a sign of progress
	progress = 100 * time.Millisecond // between two signs of it
	dying    = time.Second            // for whoever is told to end to come to it, and
	parting  = 10                     // such a part of the time that there was: a look goes behind all else
	attempts = 4                      // each without what did not answer before
	stuck    = 16                     // that wait at a time
	spared   = time.Minute            // from being asked, where nobody answered whoever could be ended
)

// apart is what is known of processes that were given up.
type apart struct {
	mu     sync.Mutex
	silent map[*exec.Cmd]string     // those that live, and what they wait for
	ended  map[string]time.Duration // since boot, until when nobody is sent where one that went had waited
}

// An errand is one call of a function of [remains.Host].
type errand struct {
	Root    string
	Away    [][]byte // names, which need be no text
	What    task
	Before  remains.Before    `json:",omitzero"`
	Session remains.Session   `json:",omitzero"`
	Found   []remains.Finding `json:",omitempty"`
	Kinds   []remains.Kind    `json:",omitempty"`
}

type task string

const (
	toSnapshot task = "snapshot"
	toLook     task = "look"
	toOwn      task = "own"
	toRemove   task = "remove"
	toSee      task = "see"
)

// An outcome is what such a call returned.
type outcome struct {
	Before        remains.Before
	Found         remains.Found
	Findings      []remains.Finding
	Skipped       []string
	Removed, Left []remains.Finding
	Why           []string // for each of Left, why it could not be removed
	Err           string
}

// A sign is what the process says: what it asks, or how it came out.
type sign struct {
	At   []byte   `json:",omitempty"`
	Done *outcome `json:",omitempty"`
}

// do runs the errand in this process.
func (e errand) do(ctx context.Context, tell func(string)) (o outcome) {
	h := remains.Host{Root: e.Root, Tell: tell}
	for _, name := range e.Away {
		h.Away = append(h.Away, string(name))
	}
	var err error
	switch e.What {
	case toSnapshot:
		o.Before, err = h.Snapshot(ctx)
	case toLook:
		humbly(func() { o.Found, err = h.Look(ctx, e.Before, e.Session) })
	case toOwn:
		o.Findings, o.Skipped, err = h.Own(e.Session)
	case toSee:
		o.Findings, err = h.There(e.Found)
	case toRemove:
		o.Removed, o.Left, err = h.Remove(ctx, e.Found, e.Kinds...)
		for _, f := range o.Left {
			why := ""
			if f.Err != nil {
				why = f.Err.Error()
			}
			o.Why = append(o.Why, why)
		}
	}
	if err != nil {
		o.Err = err.Error()
	}
	return o
}

// Apart runs the errand that it reads, and says how far it is and how it came
// out, with what it has once ctx is done: the program that [Host.Self] starts.
func Apart(ctx context.Context, in io.Reader, out io.Writer) error {
	var e errand
	if err := json.NewDecoder(in).Decode(&e); err != nil {
		return fmt.Errorf("read what to look at: %w", err)
	}
	var at atomic.Pointer[string]
	said := json.NewEncoder(out)
	done := make(chan outcome)
	go func() {
		done <- e.do(ctx, func(file string) {
			if last := at.Load(); file == "" && last != nil {
				file = *last
			}
			at.Store(&file) // another pointer each time: it goes on
		})
	}()
	tick := time.NewTicker(progress)
	defer tick.Stop()
	for last := (*string)(nil); ; {
		select {
		case o := <-done:
			return said.Encode(sign{Done: &o})
		case <-tick.C:
			if now := at.Load(); now != last {
				last = now
				if err := said.Encode(sign{At: []byte(*now)}); err != nil {
					return err
				}
			}
		}
	}
}

// send has the errand done by a process of its own, which is told to end after
// within. What does not answer is left out in the next attempt.
func (h *Host) send(ctx context.Context, within time.Duration, e errand) (o outcome, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	e.Root = h.Root
	if len(h.Self) == 0 {
		return e.do(ctx, nil).err()
	}
	var away []string
	for range attempts {
		silent, all := h.silentNow()
		if all >= stuck {
			return o, fmt.Errorf("%d looks wait for file systems that do not answer, as %q", all, silent)
		}
		e.Away = nil
		for _, name := range append(silent, away...) {
			e.Away = append(e.Away, []byte(name))
		}
		var at string
		if o, at, err = h.once(ctx, max(dying, within/parting), e); at == "" || ctx.Err() != nil {
			break
		}
		away = append(away, h.around(at))
	}
	if err != nil {
		return o, err
	}
	return o.err()
}

func (o outcome) err() (outcome, error) {
	for i, why := range o.Why {
		if why != "" && o.Left[i].Err == nil {
			o.Left[i].Err = errors.New(why)
		}
	}
	if o.Err != "" {
		return o, errors.New(o.Err)
	}
	return o, nil
}

// once starts a process for the errand. Where it gives that up, at is what the
// process asked last.
func (h *Host) once(ctx context.Context, grace time.Duration, e errand) (o outcome, at string, err error) {
	words, err := json.Marshal(e)
	if err != nil {
		return o, "", err
	}
	// Not bound to ctx: to wait for its end could be to wait for ever.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), h.Self[0], h.Self[1:]...) //nolint:gosec // this program
	cmd.Env = []string{"PATH=" + strings.Join(searchPath, ":"), "LC_ALL=C"}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return o, "", err
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return o, "", fmt.Errorf("look by a process of its own: %w", err)
	}
	left := make(chan struct{})
	defer close(left)
	said, gone := listen(cmd, out, left)
	if h.Began != nil {
		if err := h.Began(cmd.Process.Pid); err != nil {
			h.leave(cmd, gone, "", false)
			return o, "", fmt.Errorf("look by a process of its own: %w", err)
		}
	}
	go func() { // no longer than the process lives
		_, _ = in.Write(words) // who is not told all ends before its time
		_ = in.Close()
	}()
	over := ctx.Done()
	var end <-chan time.Time
	waits := false
	for {
		select {
		case s, ok := <-said:
			if ok && s.Done == nil {
				at, waits = string(s.At), false
				continue
			}
			h.leave(cmd, gone, "", false)
			if !ok {
				return o, "", errors.New("look by a process of its own: it ended before its time")
			}
			return *s.Done, "", nil
		case <-over:
			_ = cmd.Process.Signal(unix.SIGTERM) // gone already
			over, end, waits = nil, time.After(grace), true
		case <-end:
			h.leave(cmd, gone, at, waits)
			return o, at, fmt.Errorf("no time was left for %q: %w", at, context.Cause(ctx))
		case <-time.After(silence):
			h.leave(cmd, gone, at, true)
			return o, at, fmt.Errorf("%q does not answer", at)
		}
	}
}

// listen passes on what a process says, until left is closed. The goroutine
// ends with the process, whenever that may be.
func listen(cmd *exec.Cmd, out io.Reader, left <-chan struct{}) (<-chan sign, <-chan struct{}) {
	said, gone := make(chan sign), make(chan struct{})
	go func() {
		defer close(gone)
		defer func() { _ = cmd.Wait() }() // what it said tells how it ended
		defer close(said)
		for d := json.NewDecoder(out); ; {
			var s sign
			if d.Decode(&s) != nil {
				return
			}
			select {
			case said <- s:
			case <-left:
			}
		}
	}()
	return said, gone
}

// leave ends a process, and remembers what it waits for if it does not go, and
// for a while if it does: the next one would be kept as long.
func (h *Host) leave(cmd *exec.Cmd, gone <-chan struct{}, at string, waits bool) {
	_ = cmd.Process.Kill() // gone already
	select {
	case <-gone:
		if around := h.around(at); waits && around != "" {
			h.spare(around)
		}
		return
	case <-time.After(dying):
	}
	around := h.around(at)
	h.apart.mu.Lock()
	defer h.apart.mu.Unlock()
	if h.apart.silent == nil {
		h.apart.silent = map[*exec.Cmd]string{}
	}
	h.apart.silent[cmd] = around
	go func() { // for as long as the process lives, as in listen
		<-gone
		h.apart.mu.Lock()
		defer h.apart.mu.Unlock()
		delete(h.apart.silent, cmd)
	}()
}

func (h *Host) spare(place string) {
	h.apart.mu.Lock()
	defer h.apart.mu.Unlock()
	if h.apart.ended == nil {
		h.apart.ended = map[string]time.Duration{}
	}
	h.apart.ended[place] = clock.System{}.Now().Boot + spared
}

func (h *Host) around(at string) string {
	if at == "" {
		return "" // it did not come to ask anything
	}
	return remains.Host{Root: h.Root}.Around(at)
}

// silentNow is what processes that cannot be ended wait for, or one that could
// did a while ago, and how many of those that cannot there are.
func (h *Host) silentNow() (at []string, processes int) {
	h.apart.mu.Lock()
	defer h.apart.mu.Unlock()
	for _, a := range h.apart.silent {
		if a != "" {
			at = append(at, a)
		}
	}
	now := clock.System{}.Now().Boot
	maps.DeleteFunc(h.apart.ended, func(_ string, until time.Duration) bool { return now >= until })
	at = slices.AppendSeq(at, maps.Keys(h.apart.ended))
	slices.Sort(at)
	return slices.Compact(at), len(h.apart.silent)
}
