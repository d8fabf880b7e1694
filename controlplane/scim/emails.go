package scim

import (
	"fmt"
	"strings"

	"github.com/elimity-com/scim"
	"github.com/scim2/filter-parser/v2"

	"curfew.internal/controlplane/roster"
)

// emailOf is the address among a user's that she is told at: the primary one, or
// else the first for work, or else the first that there is. What is no
// address counts as none: a directory that is refused for one tells no more that
// somebody is gone.
func emailOf(v any) (address string, first bool) {
	list, _ := v.([]any)
	best := 0
	for _, one := range list {
		m, _ := one.(map[string]any)
		found, rank := addressOf(m["value"]), 1
		kind, _ := m["type"].(string)
		switch {
		case isTrue(m["primary"]):
			rank = 3
		case strings.EqualFold(kind, "work"):
			rank = 2
		}
		if found != "" && rank > best {
			address, best = found, rank
		}
	}
	return address, best == 1
}

func addressOf(v any) string {
	s, _ := v.(string)
	if roster.CheckEmail(s) != nil {
		return ""
	}
	return s
}

func isTrue(v any) bool { return strings.EqualFold(fmt.Sprint(v), "true") }

// emailsOf is the other way round: what we keep.
func emailsOf(address string) []any {
	return []any{map[string]any{"value": address, "type": "work", "primary": true}}
}

// patchEmails takes up what an operation says of the user's addresses, or of the
// one among them that its path picks.
func patchEmails(u roster.DirUser, o scim.PatchOperation) roster.DirUser {
	if e := o.Path.ValueExpression; e != nil && !picks(e, u.Email) {
		return u
	}
	sub := o.Path.AttributePath.SubAttributeName() + o.Path.SubAttributeName()
	switch {
	case sub != "" && !strings.EqualFold(sub, "value"): // how it is called, or shown
	case o.Op == scim.PatchOperationRemove:
		u.Email = ""
	case sub != "":
		u.Email = addressOf(o.Value)
	default:
		address, first := emailOf(listed(o.Value))
		if (first || address == "") && o.Op == scim.PatchOperationAdd && u.Email != "" {
			break // one more, besides the one that we took, or none
		}
		u.Email = address
	}
	return u
}

// listed is a value that stands alone as a list of it.
func listed(v any) any {
	if m, alone := v.(map[string]any); alone {
		return []any{m}
	}
	return v
}

// picks reports whether an expression picks the address that we took, or would.
func picks(e filter.Expression, ours string) bool {
	a, ok := e.(*filter.AttributeExpression)
	if !ok || !strings.EqualFold(string(a.Operator), string(filter.EQ)) {
		return false
	}
	value := fmt.Sprint(a.CompareValue)
	switch strings.ToLower(a.AttributePath.AttributeName) {
	case "type":
		return strings.EqualFold(value, "work")
	case "primary":
		return isTrue(value)
	case "value":
		return value == ours
	}
	return false
}
