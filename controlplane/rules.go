package controlplane

import (
	"context"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"curfew.internal/clock"
	"curfew.internal/controlplane/oncall"
	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/policy/folder"
	"curfew.internal/controlplane/roster"
	"curfew.internal/controlplane/store"
)

// settle is how long the policy folder has to be quiet before it is read:
// editors and git write files one by one.
const settle = 200 * time.Millisecond

// lookAgain is how often it is read without a sign: a folder on a network
// file system, or one that was replaced as a whole, gives none.
const lookAgain = time.Minute

// rules is the policy in force. A folder with a mistake changes nothing.
type rules struct {
	dir   string
	store *store.Store
	clock clock.Clock
	log   *slog.Logger
	// kept asks what the directory knows.
	kept func(context.Context) (roster.Directory, error)
	// onCall asks who is on call from elsewhere than the policy.
	onCall *oncall.Source
	// keep puts a version that comes into force into the record.
	keep func(ctx context.Context, version string, at time.Time) error
	told string // the version that the record has; load's alone

	mu    sync.Mutex // guards what follows
	taken policy.Policy
	now   policy.Policy // the same, with whom the directory has in its groups
	turn  uint64        // counts what changed of it
	asked bool          // the directory was, with success
	state roster.PolicyState

	called      policy.Policy // now, with who is on call
	calledTurn  uint64
	from, until time.Time
}

func newRules(c Config, s *store.Store, k clock.Clock, log *slog.Logger) *rules {
	r := &rules{dir: c.PolicyDir, store: s, clock: k, log: log, keep: s.KeepPolicy}
	r.kept, r.onCall = r.fromClaims, oncall.New(c.OnCall, k, log, r.handOver)
	return r
}

// handOver has who is on call looked up again.
func (r *rules) handOver() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until = time.Time{}
}

// State says which policy is in force, and what is wrong with the folder.
func (r *rules) State() roster.PolicyState {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.state
	v.Calls, _ = r.onCall.Calls()
	if wrong := r.onCall.Trouble(); wrong != "" {
		v.Warnings = append(slices.Clone(v.Warnings), wrong)
	}
	return v
}

// inForce is the policy in force, with who is on call now.
func (r *rules) inForce() policy.Policy {
	now := r.clock.Now().Wall
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.now.Rotations)+len(r.now.Calls) == 0 {
		return r.now
	}
	if r.calledTurn != r.turn || now.Before(r.from) || !now.Before(r.until) {
		said, counts := r.onCall.Calls()
		p := r.now.Called(said)
		r.called, r.calledTurn = p.OnCall(now), r.turn
		if r.from, r.until = p.Handover(now); !counts.IsZero() && counts.Before(r.until) {
			r.until = counts
		}
	}
	return r.called
}

// edition changes with all that the policy says, the directory's part of it
// included; 0: there is none, or the directory's part is not known yet, and
// nobody is to lose anything by that.
func (r *rules) edition() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now.Asks() && !r.asked {
		return 0
	}
	return r.turn
}

// names reports whether the policy has a group of the directory's.
func (r *rules) names(group string) bool {
	for _, name := range r.inForce().Directory {
		if name == group {
			return true
		}
	}
	return false
}

// fromClaims is what the provider said of people when they signed in.
func (r *rules) fromClaims(ctx context.Context) (roster.Directory, error) {
	return r.store.Claimed(ctx, r.clock.Now().Wall)
}

// gather asks what the directory knows now.
func (r *rules) gather(ctx context.Context) {
	p := r.inForce()
	if !p.Asks() {
		return
	}
	kept, err := r.kept(ctx)
	if err != nil {
		r.log.ErrorContext(ctx, "cannot look up what the directory knows: what it knew before counts", "cause", err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = true
	if r.now.Version != p.Version || reflect.DeepEqual(kept, r.now.Kept) {
		return
	}
	r.now = r.taken.With(kept)
	r.state.Kept = kept
	r.turn++
}

// Judge asks the policy in force. Without one, the answer is no.
func (r *rules) Judge(q roster.Question, hosts []roster.Host, at time.Time) (roster.Verdict, error) {
	p := r.inForce()
	if p.Version == "" {
		return roster.Verdict{}, errNoPolicy
	}
	return p.Judge(q, hosts, at)
}

// Offers asks the policy in force.
func (r *rules) Offers(person string, hosts []roster.Host, at time.Time) []roster.Offer {
	return r.inForce().Offers(person, hosts, at)
}

// Ahead asks the policy in force.
func (r *rules) Ahead(person string, hosts []roster.Host, at time.Time) []roster.Offer {
	return r.inForce().Ahead(person, hosts, at)
}

// MayApprove asks the policy in force.
func (r *rules) MayApprove(person, requester, role string) bool {
	return slices.Contains(r.inForce().MayApprove(role, requester), person)
}

// Escalates asks the policy in force.
func (r *rules) Escalates(role string) time.Duration { return r.inForce().Escalates(role) }

// StandIns asks the policy in force.
func (r *rules) StandIns(role, requester string, all []roster.Delegation) []roster.Delegation {
	return r.inForce().StandIns(role, requester, all)
}

// Lends asks the policy in force.
func (r *rules) Lends(d roster.Delegation) (roles, not []string) { return r.inForce().Lends(d) }

var errNoPolicy = roster.Refuse(roster.Conflict, "no policy is in force: an admin has to put its folder right (`curfew policy status`)")

// load reads the folder and takes it, if it is right.
func (r *rules) load(ctx context.Context) {
	defer r.gather(ctx) // once it is taken, and nothing is locked
	now := r.clock.Now().Wall
	said, _ := r.onCall.Calls()
	p, problems, err := folder.Read(os.DirFS(r.dir))
	wrong, warnings := sorted(slices.Concat(problems, p.Aged(now), r.strangers(ctx, p.Called(said))))
	if err != nil {
		wrong = []string{err.Error()}
	}
	if len(wrong) == 0 {
		r.tell(ctx, p.Version, now)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(wrong) > 0 {
		if !slices.Equal(wrong, r.state.Problems) {
			r.log.ErrorContext(ctx, "policy folder not taken: the earlier policy stays in force", "dir", r.dir, "in_force", r.state.Version, "problems", wrong)
		}
		r.state.Problems = wrong
		return
	}
	r.state.Problems, r.state.Warnings = nil, warnings
	if p.Version == r.state.Version {
		return
	}
	r.taken, r.now, r.state.Version, r.state.LoadedAt, r.state.Files = p, p.With(r.now.Kept), p.Version, now, p.Files
	r.turn++
	r.log.InfoContext(ctx, "policy in force", "version", p.Version, "roles", len(p.Roles), "warnings", warnings)
}

// tell has the record tell of a version before anybody is judged by it. Nothing
// is locked meanwhile: whoever is judged within a change holds the database's
// turn, and would wait for us as we wait for her. A version that the database
// did not take comes into force all the same, and is told at a later look.
func (r *rules) tell(ctx context.Context, version string, now time.Time) {
	if version == r.told {
		return
	}
	if err := r.keep(ctx, version, now); err != nil {
		r.log.ErrorContext(ctx, "cannot note the policy's version", "version", version, "cause", err)
		return
	}
	r.told = version
}

// strangers warns of people whom the fleet does not know. If they cannot be
// looked up, the policy counts all the same: they are warnings.
func (r *rules) strangers(ctx context.Context, p policy.Policy) []policy.Problem {
	people, err := r.store.People(ctx)
	if err != nil {
		r.log.WarnContext(ctx, "cannot look up the people whom the policy names", "cause", err)
		return nil
	}
	var known []string
	for _, one := range people {
		if !one.Disabled {
			known = append(known, one.Name)
		}
	}
	return p.Strangers(known)
}

// sorted tells mistakes from warnings.
func sorted(problems []policy.Problem) (wrong, warnings []string) {
	for _, p := range problems {
		if p.Warning {
			warnings = append(warnings, p.String())
		} else {
			wrong = append(wrong, p.String())
		}
	}
	return wrong, warnings
}

// watch reads the folder again when it changes, and when it is told to.
func (r *rules) watch(ctx context.Context, reload <-chan struct{}) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	if err := w.Add(r.dir); err != nil {
		// It is read from time to time all the same.
		r.log.WarnContext(ctx, "cannot watch the policy folder", "dir", r.dir, "cause", err)
	}
	// A file that is being written may hold half of what it is to say: the
	// folder is read when it has been quiet, also for the first time, which
	// is for what changed before it was watched.
	quiet := r.clock.After(settle)
	// Once for all that happens meanwhile: on a busy server something does, always.
	again := r.clock.After(lookAgain)
	changed := r.store.Changed()
	for {
		select {
		case <-changed:
			changed = r.store.Changed() // before the look, so that nothing falls in between
			r.gather(ctx)
		case <-ctx.Done():
			return w.Close()
		case <-w.Events:
			quiet = r.clock.After(settle)
		case err := <-w.Errors:
			r.log.WarnContext(ctx, "policy folder: events were lost, reading it", "cause", err)
			quiet = r.clock.After(settle)
		case <-quiet:
			quiet = nil
			r.load(ctx)
		case <-reload:
			r.load(ctx)
		case <-again:
			again = r.clock.After(lookAgain)
			_ = w.Add(r.dir) // it may be a new folder
			quiet = r.clock.After(settle)
		}
	}
}
