package signature

import (
	"errors"
	"sync"
	"time"
)

// ErrReplay refuses a message that was seen before.
var ErrReplay = errors.New("the call was sent twice")

// maxNonces bounds the memory that callers can take.
const maxNonces = 1 << 20

// Nonces remembers the messages of the last window. After a start nothing is
// remembered, so it refuses what was signed before it was made.
type Nonces struct {
	start time.Time

	mu   sync.Mutex
	seen map[string]time.Time // nonce and session -> created
}

// NewNonces returns an empty memory that begins at start.
func NewNonces(start time.Time) *Nonces {
	return &Nonces{start: start.Truncate(time.Second), seen: map[string]time.Time{}}
}

// Use takes the message's nonce, once.
func (n *Nonces) Use(m Message, now time.Time) error {
	if m.Created.Before(n.start) {
		return ErrSkew
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	key := m.Session + " " + m.Nonce
	if _, ok := n.seen[key]; ok {
		return ErrReplay
	}
	if len(n.seen) >= maxNonces/2 {
		for k, at := range n.seen {
			if now.Sub(at) > Window {
				delete(n.seen, k)
			}
		}
	}
	if len(n.seen) >= maxNonces {
		return ErrReplay // in doubt
	}
	n.seen[key] = m.Created
	return nil
}
