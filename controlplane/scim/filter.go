package scim

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/elimity-com/scim"
	"github.com/elimity-com/scim/schema"
	"github.com/scim2/filter-parser/v2"
)

// refers is that a resource names another one: a user her manager, a group its
// member.
type refers struct{ attribute, id string }

type refersKey struct{}

// parted takes out of a call's filter what asks whom a resource refers to, as
// Entra ID does before it changes a manager or a member: `id eq "U" and manager
// eq "M"`. The library refuses the one, whose parts stand in two schemas, and
// falls over the other, which compares an object with a text.
func parted(r *http.Request) (*http.Request, error) {
	q := r.URL.Query()
	e, err := filter.ParseFilter([]byte(q.Get("filter")))
	if err != nil {
		return r, nil //nolint:nilerr // there is none, or the library says what is wrong with it
	}
	refs, rest := part(e)
	if err := comparable(rest); err != nil || len(refs) == 0 {
		return r, err
	}
	q.Del("filter")
	if rest != nil {
		q.Set("filter", fmt.Sprint(rest))
	}
	r = r.WithContext(context.WithValue(r.Context(), refersKey{}, refs))
	u := *r.URL
	u.RawQuery = q.Encode()
	r.URL = &u
	return r, nil
}

// part parts what all has to hold into references and the rest; nil: there is
// no rest.
func part(e filter.Expression) (refs []refers, rest filter.Expression) {
	switch e := e.(type) {
	case *filter.LogicalExpression:
		if e.Operator != filter.AND {
			break
		}
		left, l := part(e.Left)
		right, r := part(e.Right)
		switch refs = append(left, right...); {
		case l == nil:
			return refs, r
		case r == nil:
			return refs, l
		}
		return refs, &filter.LogicalExpression{Left: l, Right: r, Operator: filter.AND}
	case *filter.AttributeExpression:
		name, sub := strings.ToLower(e.AttributePath.AttributeName), e.AttributePath.SubAttributeName()
		id, text := e.CompareValue.(string)
		if (name == "manager" || name == "members") && (sub == "" || strings.EqualFold(sub, "value")) && text && strings.EqualFold(string(e.Operator), string(filter.EQ)) {
			return []refers{{name, id}}, nil
		}
	}
	return nil, e
}

var schemas = []schema.Attributes{
	schema.CoreUserSchema().Attributes, schema.CoreGroupSchema().Attributes, schema.ExtensionEnterpriseUser().Attributes, schema.CommonAttributes(),
}

// comparable refuses to compare an object as a whole, which the library falls
// over.
func comparable(e filter.Expression) error {
	switch e := e.(type) {
	case *filter.LogicalExpression:
		if err := comparable(e.Left); err != nil {
			return err
		}
		return comparable(e.Right)
	case *filter.NotExpression:
		return comparable(e.Expression)
	case *filter.AttributeExpression:
		for _, s := range schemas {
			a, ok := s.ContainsAttribute(e.AttributePath.AttributeName)
			if ok && a.AttributeType() == "complex" && e.AttributePath.SubAttribute == nil && !strings.EqualFold(string(e.Operator), string(filter.PR)) {
				return fmt.Errorf("%s has parts: compare one of them, such as %[1]s.value", e.AttributePath.AttributeName)
			}
		}
	}
	return nil
}

// holds reports whether the resource refers so.
func (f refers) holds(r scim.Resource) bool {
	var all []any
	switch f.attribute {
	case "members":
		all, _ = r.Attributes["members"].([]any)
	case "manager":
		more, _ := r.Attributes[enterpriseSchema].(map[string]any)
		all = append(all, more["manager"])
	}
	for _, v := range all {
		if one, _ := v.(map[string]any); one["value"] == f.id {
			return true
		}
	}
	return false
}

// referring are the resources that refer as the call asks for.
func referring(ctx context.Context, all []scim.Resource) []scim.Resource {
	refs, _ := ctx.Value(refersKey{}).([]refers)
	found := []scim.Resource{}
next:
	for _, r := range all {
		for _, f := range refs {
			if !f.holds(r) {
				continue next
			}
		}
		found = append(found, r)
	}
	return found
}
