package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/host/remains"
)

// told is how many findings of a sort a receipt names, and brief how much it
// says of each.
const (
	told  = 200
	brief = 300
)

// Snapshot tells what the guarded places look like, for a later Leavings.
func (h *Host) Snapshot(ctx context.Context) ([]byte, error) {
	o, err := h.send(ctx, brisk, errand{What: toSnapshot})
	if err != nil {
		return nil, fmt.Errorf("look at what sessions could change: %w", err)
	}
	if text, err := h.environment(ctx); err == nil && o.Before.Values != nil {
		o.Before.Values[environment] = text // without it, the look says so
	}
	return json.Marshal(o.Before)
}

// own looks for what is the account's own in the usual places.
func (h *Host) own(ctx context.Context, person string, uid uint32) (found []remains.Finding, skipped []string, err error) {
	o, err := h.send(context.WithoutCancel(ctx), brisk, errand{What: toOwn, Session: remains.Session{Person: person, UID: uid, Since: time.Unix(1, 0)}})
	return o.Findings, o.Skipped, err
}

// Clear removes what the account left in places of its own: jobs that would
// run again, and files in folders that everybody shares. It says what went. Of
// very much it takes a part: other people's ends wait for this one.
func (h *Host) Clear(ctx context.Context, person string, uid uint32) ([]string, error) {
	found, _, err := h.own(ctx, person, uid)
	errs := []error{err}
	removed, left, err := h.take(ctx, brisk, found)
	for _, f := range left[:min(len(left), told)] {
		errs = append(errs, fmt.Errorf("remove %s: %w", f.Path, f.Err))
	}
	return words(removed), errors.Join(append(errs, err)...)
}

// take removes all of the findings. Where nobody comes to tell what went, all
// is left.
func (h *Host) take(ctx context.Context, within time.Duration, found []remains.Finding) (removed, left []remains.Finding, err error) {
	if len(found) == 0 {
		return nil, nil, nil
	}
	var kinds []remains.Kind
	for _, f := range found {
		kinds = append(kinds, f.Kind)
	}
	o, err := h.send(ctx, within, errand{What: toRemove, Found: found, Kinds: kinds})
	if len(o.Removed)+len(o.Left) == 0 {
		o.Left = found
	}
	return o.Removed, o.Left, err
}

// A Trace is what to look for after a session.
type Trace struct {
	Person string
	UID    uint32
	Since  time.Time
	Before []byte   // a Snapshot of then; without it, times are all there is to go by
	Remove []string // kinds of leftovers that go, whoever owns them

	// Own is asked right before removals: whether what is the account's own
	// goes as well.
	Own func() bool
	// Begin is told of removals before they are made, in words of ours, and
	// Begun are the last such words of somebody who did not come to their end.
	Begin func(removals []byte)
	Begun []byte
}

// Leavings are what was found.
type Leavings struct{ Removed, Left, Looked, Skipped []string }

// humbly runs f on a thread that everything else on the host goes before.
func humbly(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()                         // and never unlocked: the thread goes with its priority
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 19) // of this thread (setpriority(2)); without it, it is only faster
		f()
	}()
	<-done
}

// Leavings looks for what a session left, and removes what the trace says. It
// takes seconds; an error says that the look did not take place.
func (h *Host) Leavings(ctx context.Context, t Trace) (Leavings, error) {
	var before remains.Before
	var skipped []string
	if len(t.Before) > 0 {
		if err := json.Unmarshal(t.Before, &before); err != nil {
			before, skipped = remains.Before{}, []string{"what was seen before the session: it cannot be read"}
		}
	}
	o, err := h.send(ctx, lasting, errand{What: toLook, Before: before, Session: remains.Session{Person: t.Person, UID: t.UID, Since: t.Since}})
	if err != nil {
		return Leavings{}, fmt.Errorf("look for leftovers: %w", err)
	}
	found := o.Found
	given, err := h.environment(ctx)
	was, known := before.Values[environment]
	if err == nil && known {
		found.Findings = append(found.Findings, set(was, given)...)
		found.Looked = append(found.Looked, environment)
	} else {
		skipped = append(skipped, environment+": it is not known, or was not before the session")
	}
	own := t.Own()
	if !own {
		skipped = append(skipped, "what is "+t.Person+"'s own is not removed: another grant of hers stands")
	}
	var chosen, rest []remains.Finding
	for _, f := range found.Findings {
		if f.Removable && (t.listed(f) || own && t.owned(f)) {
			chosen = append(chosen, f)
		} else {
			rest = append(rest, f)
		}
	}
	begun := begunOf(t.Begun)
	if plan, err := json.Marshal(append(begun, chosen...)); err == nil && len(chosen) > 0 {
		t.Begin(plan)
	}
	removed, left, err := h.take(ctx, lasting, chosen)
	if err != nil {
		skipped = append(skipped, "removal: "+err.Error())
	}
	if err := h.unload(ctx, removed); err != nil {
		skipped = append(skipped, "units that went may still run: "+err.Error())
	}
	left = h.without(ctx, append(rest, left...))
	return Leavings{
		Removed: words(append(removed, lost(begun, found.Findings)...)), Left: words(left),
		Looked: found.Looked, Skipped: append(skipped, found.Skipped...),
	}, nil
}

// listed reports whether the role has the finding removed.
func (t Trace) listed(f remains.Finding) bool {
	return slices.ContainsFunc(t.Remove, func(k string) bool { return f.Is(remains.Kind(k)) })
}

// owned reports whether the finding is the account's own, and of a kind that
// goes with the account.
func (t Trace) owned(f remains.Finding) bool {
	if f.Kind == remains.Linger {
		return path.Base(f.Path) == t.Person
	}
	return f.ID.UID == t.UID && f.Is(remains.Crontab, remains.AtJob, remains.Mail, remains.TempFile, remains.Multiplexer, remains.RuntimeDir)
}

// begunOf reads what somebody was about to remove. What cannot be read is
// told by nobody.
func begunOf(plan []byte) []remains.Finding {
	var begun []remains.Finding
	_ = json.Unmarshal(plan, &begun) // nothing, where it is damaged
	return begun
}

// lost are those of the removals that were begun whose file was not found any
// more.
func lost(begun, found []remains.Finding) []remains.Finding {
	return slices.DeleteFunc(slices.Clone(begun), func(b remains.Finding) bool {
		return slices.ContainsFunc(found, func(f remains.Finding) bool { return f.Path == b.Path })
	})
}

// without leaves out what logind takes away by itself, and has taken meanwhile.
func (h *Host) without(ctx context.Context, left []remains.Finding) []remains.Finding {
	passing := func(f remains.Finding) bool {
		return f.Is(remains.RuntimeDir, remains.UserUnit, remains.Linger, remains.Multiplexer) && !strings.HasPrefix(f.Detail, "gone")
	}
	ask := slices.DeleteFunc(slices.Clone(left), func(f remains.Finding) bool { return !passing(f) })
	if len(ask) == 0 {
		return left
	}
	o, err := h.send(ctx, brisk, errand{What: toSee, Found: ask})
	if err != nil {
		return left
	}
	return slices.DeleteFunc(left, func(f remains.Finding) bool {
		return passing(f) && !slices.ContainsFunc(o.Findings, func(there remains.Finding) bool { return there.Path == f.Path })
	})
}

// words tells findings for a receipt: what acts or opens a door first.
func words(found []remains.Finding) []string {
	slices.SortStableFunc(found, func(a, b remains.Finding) int {
		switch {
		case a.Kind.Inert() == b.Kind.Inert():
			return 0
		case a.Kind.Inert():
			return 1
		}
		return -1
	})
	var all []string
	for _, f := range found {
		all = append(all, f.String())
	}
	return bounded(all)
}

// bounded is as much of a list as a receipt takes, whatever somebody makes: one
// that is too long for the record would be none.
func bounded(all []string) []string {
	n := len(all) - told
	all = all[:min(len(all), told)]
	for i, text := range all {
		if len(text) > brief {
			all[i] = strings.ToValidUTF8(text[:brief], "") + "..."
		}
	}
	if n > 0 {
		all = append(all, fmt.Sprintf("and %d more", n))
	}
	return all
}

// units are the endings of what a manager may still run when its file is gone.
var units = []string{".service", ".timer", ".socket", ".path", ".target", ".mount", ".automount", ".swap"}

// unload tells the manager of units that went, and stops those of which no
// file is left. One that covered a unit of the host's uncovers it, and that
// one goes on.
func (h *Host) unload(ctx context.Context, removed []remains.Finding) error {
	var names []string
	for _, f := range removed {
		if f.Is(remains.SystemUnit, remains.Timer) && slices.Contains(units, path.Ext(f.Path)) {
			names = append(names, path.Base(f.Path))
		}
	}
	if len(names) == 0 {
		return nil
	}
	if out, err := h.run(ctx, "systemctl", "daemon-reload"); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(out))
	}
	var errs []error
	for _, name := range names {
		state, err := h.run(ctx, "systemctl", "show", "--property=LoadState", "--value", "--", name)
		if err == nil && strings.TrimSpace(state) == "not-found" {
			_, err = h.run(ctx, "systemctl", "stop", "--", name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
