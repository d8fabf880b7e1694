package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/roster"
)

// A Past is a request that was made.
type Past struct {
	ID       string
	Question roster.Question
	At       time.Time
	Start    time.Time     // when it was to begin, if that was not at once
	ProofAge time.Duration // of the earlier one on which it stood; 0: it had one of its own
}

// A Replay is a request to which the new policy says something else.
type Replay struct {
	Request   string    `json:"request"`
	Person    string    `json:"person"`
	Role      string    `json:"role"`
	Hosts     []string  `json:"hosts"`
	At        time.Time `json:"asked_at"`
	Direction string    `json:"direction"`
	Text      string    `json:"text"`
}

// Replays asks both policies what they say to each request, as of the time when
// it was made, or was to begin, and for the hosts as they are now.
func Replays(from, to policy.Policy, asked []Past, hosts []roster.Host) []Replay {
	all := []Replay{}
	for _, q := range asked {
		r := Replay{Request: q.ID, Person: q.Question.Person, Role: q.Question.Role, Hosts: q.Question.Hosts, At: q.At}
		begin := q.At
		if q.Start.After(begin) {
			begin = q.Start
		}
		before, wrong := from.OnCall(q.At).Judge(q.Question, hosts, begin)
		after, wrongNow := to.OnCall(q.At).Judge(q.Question, hosts, begin)
		switch {
		case wrong == nil && wrongNow != nil:
			r.Direction, r.Text = Narrower, "would be refused: "+wrongNow.Error()
		case wrong != nil && wrongNow == nil:
			r.Direction, r.Text = Wider, fmt.Sprintf("would be allowed, with %d approvals; it is refused: %s", after.Needed, wrong.Error())
		case wrong != nil:
			continue
		case before.Needed != after.Needed:
			r.Direction = up(-int64(before.Needed), -int64(after.Needed))
			r.Text = fmt.Sprintf("would need %d approvals, and needs %d%s", after.Needed, before.Needed, because(after.Doubts))
		case !slices.Equal(before.Approvers, after.Approvers):
			r.Direction = Other
			r.Text = "would be approved by " + roster.Some(after.Approvers, ", ") + ", and is by " + roster.Some(before.Approvers, ", ")
		case q.ProofAge < before.Fresh && q.ProofAge > 0 && q.ProofAge >= after.Fresh:
			r.Direction, r.Text = Narrower, "would take a proof of its own, and stands on one that was "+span(q.ProofAge.Truncate(time.Second))+" old"
		default:
			continue
		}
		all = append(all, r)
	}
	return all
}

// because tells why the new policy asks in steps that it does not always ask in.
func because(doubts []roster.Doubt) string {
	var all []string
	for _, d := range doubts {
		all = append(all, d.Because)
	}
	if len(all) == 0 {
		return ""
	}
	return ", because " + strings.Join(all, "; and because ")
}
