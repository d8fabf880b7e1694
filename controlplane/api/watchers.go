package api

import (
	"sync"

	"curfew.internal/controlplane/roster"
)

// mostWatched is how much that changes a person looks at, at once. Each look
// is made again every second, for as long as she likes.
const mostWatched = 32

var errWatched = roster.Refuse(roster.TooMuch, "you look at %d things that change already: close pages, or commands that wait", mostWatched)

// watchers bounds how much each person has looked at for her.
type watchers struct {
	mu sync.Mutex     // guards what follows
	by map[string]int // by person
}

// enter begins a look of the person's, and returns what ends it.
func (w *watchers) enter(person string) (leave func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by[person] >= mostWatched {
		return nil, errWatched
	}
	if w.by == nil {
		w.by = map[string]int{}
	}
	w.by[person]++
	return func() { w.leave(person) }, nil
}

func (w *watchers) leave(person string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by[person]--; w.by[person] == 0 {
		delete(w.by, person)
	}
}
