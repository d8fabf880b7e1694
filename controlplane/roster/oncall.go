package roster

import "time"

// A Turn is the time for which somebody is on call; its end is excluded.
type Turn struct {
	Person string
	From   time.Time
	Until  time.Time
}

// Calls is what is known of who is on call from elsewhere than the policy's
// files.
type Calls struct {
	Rotations map[string][]Turn // by the source's names
	Why       string            // nobody is on call by it, and this is why; empty: it counts
}
