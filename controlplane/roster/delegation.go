package roster

import "time"

// A Delegation is one person's word that another may approve in her place,
// while she is away.
type Delegation struct {
	ID      string
	Away    string // in whose place
	StandIn string // who may
	From    time.Time
	Until   time.Time // excluded
	Note    string
	Factor  string // that she proved herself with
	MadeAt  time.Time
	EndedAt time.Time // before its time; zero: it was not
	EndedBy string
}

// Stands reports whether it counts at that instant.
func (d Delegation) Stands(at time.Time) bool {
	return d.EndedAt.IsZero() && !at.Before(d.From) && at.Before(d.Until)
}

// Steps in the life of a delegation, and of a request that one may be used for,
// as the record has them.
const (
	LentStep     = "delegated"
	TakenStep    = "delegation-ended"
	InPlaceStep  = "stand-in" // somebody may approve a request in another's place
	MaxLent      = 30 * 24 * time.Hour
	MaxLentAhead = 90 * 24 * time.Hour
	MaxLentOpen  = 20 // of one person
)
