package roster

import (
	"fmt"
	"strings"
	"time"
)

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

// Taken is what the record says of one that has ended before its time, and why.
func (d Delegation) Taken(why string) string {
	return fmt.Sprintf("%s may no longer approve in place of %s%s", d.StandIn, d.Away, why)
}

// IsTaken reports whether that is said of it, whatever the reason, which begins
// with a colon.
func (d Delegation) IsTaken(text string) bool {
	said, _, _ := strings.Cut(text, ":")
	return said == d.Taken("")
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
