package roster

import (
	"maps"
	"regexp"
	"slices"
)

const maxLabels = 32

var labelForm = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,61}[a-zA-Z0-9])?$`)

// CheckLabels lets a host's labels have the alphabet that selectors are
// written in.
func CheckLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return Refuse(Invalid, "a host has up to %d labels", maxLabels)
	}
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if !labelForm.MatchString(k) || !labelForm.MatchString(labels[k]) {
			return Refuse(Invalid, "label %.64q=%.64q: write 1 to 63 letters and digits, with . _ / - inside", k, labels[k])
		}
	}
	return nil
}
