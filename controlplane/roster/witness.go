package roster

import (
	"strings"
	"time"
)

// A Witness is what is known of one that is asked to cosign the log.
type Witness struct {
	Key     string    // its public half, which begins with its name
	Size    uint64    // of the newest checkpoint that it cosigned
	Note    []byte    // that checkpoint, with the witness's line
	At      time.Time // when it cosigned, as it says
	Since   time.Time // it does not cosign since then; zero: it does
	Why     string
	Refuses bool // it says that the log is not what it was
	Told    bool // the record tells that it does not cosign
}

// Name is how the witness is called.
func (w Witness) Name() string {
	name, _, _ := strings.Cut(w.Key, "+")
	return name
}

// What the record tells of witnesses.
const (
	Refuses = "refuses" // the log is not what the witness cosigned
	Silent  = "silent"  // it cannot be reached, or gives no cosignature
	Cosigns = "cosigns" // again
)
