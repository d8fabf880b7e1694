package policy

import "slices"

// longestLine is more managers than are above anybody.
const longestLine = 64

// line is the person, her manager, that one's manager and so on; nothing, if it
// goes in a circle or has no end.
func (r Role) line(person string) []string {
	all := []string{person}
	for len(all) <= longestLine {
		m := r.Managers[all[len(all)-1]]
		if m == "" || m == all[len(all)-1] {
			return all
		}
		if slices.Contains(all, m) {
			return nil
		}
		all = append(all, m)
	}
	return nil
}

// outside reports whether neither of the two is in the other's reporting line.
// It has to show: both lines end with the same person. One that was cut, since
// the directory does not know somebody's manager or has her disabled, could
// hide who stands above.
func (r Role) outside(person, approver string) bool {
	hers, theirs := r.line(person), r.line(approver)
	return len(hers) > 0 && len(theirs) > 0 && hers[len(hers)-1] == theirs[len(theirs)-1] &&
		!slices.Contains(hers, approver) && !slices.Contains(theirs, person)
}
