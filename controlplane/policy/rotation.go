package policy

import (
	"time"

	"github.com/goccy/go-yaml/ast"

	"curfew.internal/controlplane/policy/condition"
	"curfew.internal/grant"
)

// A Rotation says who of a group is on call: each for a week, in turn.
type Rotation struct {
	People []string
	First  time.Time // when the first of them begins, in the zone whose clocks count
}

// begin is when a turn begins: at the same hour by the zone's clocks, whether
// or not they were changed meanwhile.
func (r Rotation) begin(turn int) time.Time {
	y, m, d := r.First.Date()
	return time.Date(y, m, d+7*turn, r.First.Hour(), r.First.Minute(), 0, 0, r.First.Location())
}

// At is who is on call at that instant, and from when until when; nobody,
// before the first turn.
func (r Rotation) At(at time.Time) (who string, from, until time.Time) {
	if at.Before(r.First) || len(r.People) == 0 {
		return "", time.Time{}, r.First
	}
	turn := int(at.Sub(r.First) / (7 * 24 * time.Hour)) // to an hour or so, by the clocks
	for !at.Before(r.begin(turn + 1)) {
		turn++
	}
	for at.Before(r.begin(turn)) {
		turn--
	}
	return r.People[turn%len(r.People)], r.begin(turn), r.begin(turn + 1)
}

// maxTurns is how many a rotation may have.
const maxTurns = 100

// rotation reads a group of which one is on call.
func (r *reader) rotation(group, field string, n ast.Node) {
	var t turns
	before := len(r.problems)
	r.pairs(n, field, func(key string, k, v ast.Node) { r.turn(&t, key, k, v, field) })
	whole := len(t.people) > 0 && len(t.people) <= maxTurns && !t.from.IsZero() && !t.at.IsZero() && t.in != nil
	if len(r.problems) == before && !whole {
		r.wrong(n, field, "no whole rotation", "write {rotation: [PERSON, ...], from: 2027-01-04, at: '09:00', zone: Europe/Berlin}")
	}
	turn := Rotation{People: t.people}
	if t.in != nil {
		turn.First = time.Date(t.from.Year(), t.from.Month(), t.from.Day(), t.at.Hour(), t.at.Minute(), 0, 0, t.in)
	}
	r.policy.Groups[group], r.policy.Rotations[group] = nil, turn
}

// turns are a rotation as it is written.
type turns struct {
	people   []string
	from, at time.Time
	in       *time.Location
}

// turn reads one of a rotation's keys.
func (r *reader) turn(t *turns, key string, k, v ast.Node, field string) {
	field = join(field, key)
	var err error
	switch key {
	case "rotation":
		for _, w := range r.list(v, field) {
			if err := grant.CheckPerson(w.text); err != nil {
				r.wrong(w.node, field, err.Error(), "")
			}
			t.people = append(t.people, w.text)
		}
	case "from":
		if t.from, err = time.Parse(time.DateOnly, r.text(v, field)); err != nil || t.from.Year() < 2000 || t.from.Year() > 9000 {
			r.wrong(v, field, "no date", "write YEAR-MONTH-DAY: the day on which the first turn begins, and each other")
		}
	case "at":
		if t.at, err = time.Parse("15:04", r.text(v, field)); err != nil {
			r.wrong(v, field, "no time of the day", "write one like '09:00', in quotes")
		}
	case "zone":
		if t.in, err = condition.Zone(r.text(v, field)); err != nil {
			r.wrong(v, field, err.Error(), "")
		}
	default:
		r.wrong(k, field, "unknown key", "a rotation has rotation, from, at and zone")
	}
}

// notOnCall refuses a group of which one is on call where it cannot be read as
// a list of people.
func (r *reader) notOnCall(group string, n ast.Node, field string) {
	if r.policy.changes(group) {
		r.wrong(n, field, "who is on call changes each week, and with it who would lose the role", "rotations are for approvals: name the people here; a condition may ask for 'NAME' in groups")
	}
}
