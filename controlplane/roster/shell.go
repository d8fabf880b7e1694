package roster

import (
	"log/slog"
	"time"
)

// A Typed is what a person typed behind sudo, in a shell on a host. Whose
// shell it is, and what was typed, the host says.
type Typed struct {
	Host, Person string
	Session      uint64 // the label of her shell
	RunAs        string
	Paths        []string // of the program: the same file in each spelling
	Args         []string
	Shell        bool // no program, but a shell: Args is what was typed
	Directory    string
}

// A Wish is what she asks for then.
type Wish struct {
	Typed
	Role, Reason, Ticket string
	Duration             time.Duration
	Code                 string // of her second factor
	Key                  string // chosen by the host: the same again goes on with the same request
}

// LogValue keeps the code out of logs.
func (w Wish) LogValue() slog.Value { return slog.StringValue("[secret]") }

// An Origin is where a request was typed, as approvers read it.
type Origin struct {
	Host      string `json:"host"`
	Session   string `json:"session"`
	Command   string `json:"command"`
	Directory string `json:"directory"`
}

// A Told is how a request stands, for who waits in the shell.
type Told struct {
	ID, State, WaitsFor string
	Lapses              time.Time
	Approved            []string
	By, Note            string // of the decision
	Grant               string
}
