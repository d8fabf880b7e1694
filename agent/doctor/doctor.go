// Package doctor says what is wrong with a host, from what was observed of it,
// and which command mends it.
//
// It is arithmetic on values: it looks at nothing itself and it changes
// nothing, so that every rule can be tested without a host.
package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Severity says how much a finding matters.
type Severity int

// The severities.
const (
	Fine    Severity = iota
	Note             // worth knowing, and nothing that has to be mended
	Warning          // it works, and will not when something else fails; or it lets in more than it should
	Broken           // something does not work that people or grants rely on
)

var severities = []string{"fine", "note", "warning", "broken"}

// Exit is the exit code for monitoring: 0, 1 for warnings, 2 for what is broken.
func (s Severity) Exit() int { return max(0, int(s)-int(Note)) }

// String is the severity's name.
func (s Severity) String() string {
	if s < 0 || int(s) >= len(severities) {
		return fmt.Sprintf("severity-%d", int(s))
	}
	return severities[s]
}

// MarshalText writes the name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the name.
func (s *Severity) UnmarshalText(b []byte) error {
	i := slices.Index(severities, string(b))
	if i < 0 {
		return fmt.Errorf("%q is no severity", b)
	}
	*s = Severity(i)
	return nil
}

// A Finding is one thing that is wrong.
type Finding struct {
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	Says     string   `json:"says"` // one sentence
	// Mend is the command that mends it, on the host as root; where none can,
	// the one that shows more.
	Mend string `json:"mend"`
}

// A Report is all that was found.
type Report struct {
	Host     string    `json:"host"`
	At       time.Time `json:"at"`
	Severity Severity  `json:"severity"` // the worst
	Checks   []string  `json:"checks"`   // that were made
	Findings []Finding `json:"findings"` // the worst first
}

// Facts are what was observed of a host. A part that could not be looked at
// says why, and is a finding.
type Facts struct {
	Host    string
	Now     time.Time
	Version string // of the program that asks
	Agent   Agent
	Kernel  Kernel
	Wiring  Wiring
	PAM     PAM
	Sudo    Sudo
	Names   Names
	SSHD    SSHD
	Clock   Clock
	Rooms   []Room
	Units   Units
}

// checks are made in this order.
var checks = []struct {
	name string
	rule func(Facts) []Finding
}{
	{"agent", agent},
	{"uplink", uplink},
	{"version", version},
	{"kernel", kernel},
	{"wiring", wiring},
	{"pam", pam},
	{"sudo", sudo},
	{"names", names},
	{"sshd", sshd},
	{"clock", clock},
	{"room", room},
	{"units", units},
}

// Examine makes every check.
func Examine(f Facts) Report {
	r := Report{Host: f.Host, At: f.Now, Findings: []Finding{}}
	for _, c := range checks {
		r.Checks = append(r.Checks, c.name)
		for _, found := range c.rule(f) {
			found.Check = c.name
			r.Findings = append(r.Findings, found)
			r.Severity = max(r.Severity, found.Severity)
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return cmp.Compare(b.Severity, a.Severity) })
	return r
}

func note(mend, format string, args ...any) Finding {
	return Finding{Severity: Note, Says: fmt.Sprintf(format, args...), Mend: mend}
}

func warning(mend, format string, args ...any) Finding {
	return Finding{Severity: Warning, Says: fmt.Sprintf(format, args...), Mend: mend}
}

func broken(mend, format string, args ...any) Finding {
	return Finding{Severity: Broken, Says: fmt.Sprintf(format, args...), Mend: mend}
}

// oneLine is the first line of a program's words that says something.
func oneLine(s string) string {
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return "no reason given"
}

// quote makes a word safe to paste into a shell.
func quote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/._-:@%+=,", r)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
