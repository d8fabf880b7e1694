package roster

import (
	"time"

	"curfew.internal/grant"
)

// A Question is what the policy is asked about.
type Question struct {
	Person   string
	Role     string
	Hosts    []string // sorted
	Duration time.Duration
	Reason   string
	Ticket   string
	Source   string // the address from which it was asked; empty: not known
	Risk     Risk
	Doubts   []Doubt // that there were when it was asked; they stay
}

// A Step is one part of an approval, without the one who asks.
type Step struct {
	By    []string // who may approve
	Count int      // how many of them
	After time.Duration
	Later []string // who may too, so long after the step began; nobody, if After is none

	Because string // why it is asked, where that depends; empty: it always is
}

// A Verdict is what the policy demands before it is given.
type Verdict struct {
	Role      grant.Role // as it stands now
	Lease     time.Duration
	Needed    int    // approvals, of all steps
	Steps     []Step // that are asked
	Doubts    []Doubt
	Approvers []string
	Spared    []string          // who would approve in steps that are not asked, and in no other
	Apart     []string          // roles of which the person may hold none besides
	Waits     time.Duration     // how long a request waits for them
	Fresh     time.Duration     // how old a proof of the requester's may be; 0: she proves herself for this request
	Version   string            // of the policy
	OnCall    map[string]string // of approvers: where they are on call, and until when
	Nobody    string            // why nobody is on call where somebody could approve; empty: somebody is
}

// An Offer is a role that somebody may ask for.
type Offer struct {
	Role           grant.Role
	Description    string
	Hosts          []string
	Selector       string
	MaxDuration    time.Duration
	ReasonRequired bool
	TicketRequired bool
	Fresh          time.Duration // how old a proof may be with which it is asked for; 0: each request takes its own
	Approvers      []string      // of the steps that are always asked
	Needed         int           // by them
	Doubtful       []string      // what the other steps are asked for, each in a sentence
	Anybody        []string      // who may approve in any step
	Most           int           // approvals, if each is asked
	From           time.Time     // beginning of eligibility; zero: it stands
	Until          time.Time     // its end; zero: open
	When           []string      // conditions that have to hold
}

// PolicyState is the policy in force, and what is wrong with the folder as it
// is now.
type PolicyState struct {
	Version  string
	LoadedAt time.Time
	Problems []string
	Warnings []string
	Files    map[string][]byte // of the policy in force
	Kept     Directory         // what the directory knows
	Calls    Calls             // what the on-call source said
}

// A Confirmation is how a person proves a new factor.
type Confirmation struct {
	Secret     string // of the invite
	Device     []byte
	Code       string
	DeviceName string
}

// A Login is how a device that was enrolled asks for a session.
type Login struct {
	Person    string
	Device    []byte
	At        int64 // seconds since 1970
	Signature []byte
	Code      string
}
