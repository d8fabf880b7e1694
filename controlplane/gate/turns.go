package gate

import (
	"cmp"
	"container/heap"
	"slices"
	"sync"
	"time"
)

// Turns are had by few at once, so that what is begun for somebody is done
// before she gives up; the others wait, which costs nearly nothing. The next is
// who comes from the address that has fewest turns, however many wait there;
// none has more than half, so that one alone keeps nobody waiting.
// Among equals it is the newest: when more come than can be served in time, the
// oldest are those who are about to leave, and what was done for one of them
// would be lost with her.
type Turns struct {
	// Most is how many there are at once. Optional; no bound.
	Most int

	mu    sync.Mutex // guards what follows
	had   int
	came  uint64
	by    map[string]*queue
	order order
}

// A queue is who comes from one address.
type queue struct {
	had  int
	wait []*waiter // the newest last
	at   int       // in the order, while somebody waits
}

type waiter struct {
	number uint64
	turn   chan struct{} // closed when it is hers
}

// take waits for a turn of the place, until she is gone, or it takes too long.
func (t *Turns) take(place string, gone <-chan struct{}, late <-chan time.Time) (done func(), ok bool) {
	if t.Most <= 0 {
		return func() {}, true
	}
	w := t.enter(place)
	done = sync.OnceFunc(func() { t.leave(place, w) })
	select {
	case <-w.turn:
		return done, true
	case <-gone:
	case <-late:
	}
	done()
	return nil, false
}

func (t *Turns) enter(place string) *waiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		t.by = map[string]*queue{}
	}
	q := t.by[place]
	if q == nil {
		q = &queue{}
		t.by[place] = q
	}
	t.came++
	w := &waiter{t.came, make(chan struct{})}
	if q.wait = append(q.wait, w); len(q.wait) == 1 {
		heap.Push(&t.order, q)
	} else {
		heap.Fix(&t.order, q.at)
	}
	t.next()
	return w
}

// leave is for who has had her turn, or waits for it no more.
func (t *Turns) leave(place string, w *waiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.by[place]
	if i, waits := slices.BinarySearchFunc(q.wait, w.number, func(w *waiter, n uint64) int { return cmp.Compare(w.number, n) }); waits {
		q.wait = slices.Delete(q.wait, i, i+1)
		t.sort(q)
	} else {
		t.had--
		q.had--
		if len(q.wait) > 0 {
			heap.Fix(&t.order, q.at)
		}
		t.next()
	}
	if q.had == 0 && len(q.wait) == 0 {
		delete(t.by, place)
	}
}

// next gives turns while there are some.
func (t *Turns) next() {
	for t.had < t.Most && len(t.order) > 0 && t.order[0].had < max(1, t.Most/2) {
		q := t.order[0]
		last := len(q.wait) - 1
		w := q.wait[last]
		q.wait[last] = nil
		q.wait = q.wait[:last]
		t.had++
		q.had++
		t.sort(q)
		close(w.turn)
	}
}

// sort puts a queue where it belongs, after one has left it.
func (t *Turns) sort(q *queue) {
	if len(q.wait) == 0 {
		heap.Remove(&t.order, q.at)
	} else {
		heap.Fix(&t.order, q.at)
	}
}

// order implements [heap.Interface]: the queue whose turn is next comes first.
type order []*queue

func (o order) Len() int { return len(o) }

func (o order) Less(i, j int) bool {
	a, b := o[i], o[j]
	if a.had != b.had {
		return a.had < b.had
	}
	return a.wait[len(a.wait)-1].number > b.wait[len(b.wait)-1].number
}

func (o order) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].at, o[j].at = i, j
}

func (o *order) Push(x any) {
	q, _ := x.(*queue)
	q.at = len(*o)
	*o = append(*o, q)
}

func (o *order) Pop() any {
	last := len(*o) - 1
	q := (*o)[last]
	(*o)[last] = nil
	*o = (*o)[:last]
	return q
}
