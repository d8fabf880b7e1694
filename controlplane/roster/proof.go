package roster

import "time"

// A Proof is what a person proved herself with on a session, and for which call.
type Proof struct {
	Session string    `json:"-"`
	Network string    `json:"-"`      // that it came from, see [NetworkOf]
	Factor  string    `json:"factor"` // totp, passkey
	For     string    `json:"for"`    // request, extension, approval
	At      time.Time `json:"at"`
}

// Bounds of what stands on a proof besides the call that it was made for.
const (
	ProofLife = time.Hour // whatever a role says
	ProofUses = 10        // requests
)
