package scim

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strings"

	"github.com/elimity-com/scim"
	"github.com/scim2/filter-parser/v2"

	"curfew.internal/controlplane/roster"
)

// coreGroup is the schema of groups in small letters, as attributes are
// compared.
const coreGroup = "urn:ietf:params:scim:schemas:core:2.0:group"

// groups answers for /Groups.
type groups struct{ *Server }

func (s groups) resource(g roster.DirGroup) scim.Resource {
	members := make([]any, 0, len(g.Members))
	for _, id := range g.Members {
		members = append(members, map[string]any{"value": id, "$ref": s.origin + Path + "Users/" + id, "type": "User"})
	}
	return scim.Resource{
		ID: g.ID, ExternalID: external(g.ExternalID), Meta: scim.Meta{Created: &g.Created, LastModified: &g.Changed},
		Attributes: scim.ResourceAttributes{"displayName": g.Name, "members": members},
	}
}

// ids are those of the members that a value lists.
func ids(v any) ([]string, error) {
	list, _ := v.([]any)
	var all []string
	for _, m := range list {
		member, _ := m.(map[string]any)
		id, _ := member["value"].(string)
		if kind, _ := member["type"].(string); id == "" || kind != "" && !strings.EqualFold(kind, "User") {
			return nil, invalid("a member is a user, by its id: groups in groups are not kept")
		}
		all = append(all, id)
	}
	return all, nil
}

func takeGroup(g roster.DirGroup, attributes map[string]any) (roster.DirGroup, error) {
	var err error
	for key, v := range attributes {
		switch strings.TrimPrefix(strings.ToLower(key), coreGroup+":") {
		case coreGroup:
			more, _ := v.(map[string]any)
			g, err = takeGroup(g, more)
		case "displayname":
			if g.Name, err = text("displayName", v, 200); err == nil && g.Name == "" {
				err = invalid("displayName is empty")
			}
		case "externalid":
			g.ExternalID, err = text("externalId", v, 200)
		case "members":
			g.Members, err = ids(v)
		}
		if err != nil {
			return g, err
		}
	}
	return g, nil
}

// Create implements [scim.ResourceHandler].
func (s groups) Create(r *http.Request, attributes scim.ResourceAttributes) (scim.Resource, error) {
	g, err := takeGroup(roster.DirGroup{ID: "g-" + strings.ToLower(rand.Text())}, attributes)
	if err == nil {
		g, err = s.store.AddDirGroup(r.Context(), g, s.act())
	}
	if err != nil {
		return scim.Resource{}, s.said(r.Context(), g.ID, err)
	}
	s.log.InfoContext(r.Context(), "the directory keeps a group", "group", g.Name, "members", len(g.Members))
	return s.resource(g), nil
}

// Get implements [scim.ResourceHandler].
func (s groups) Get(r *http.Request, id string) (scim.Resource, error) {
	g, err := s.store.DirGroup(r.Context(), id)
	return s.resource(g), s.said(r.Context(), id, err)
}

// GetAll implements [scim.ResourceHandler].
func (s groups) GetAll(r *http.Request, q scim.ListRequestParams) (scim.Page, error) {
	all, err := s.store.DirGroups(r.Context())
	if err != nil {
		return scim.Page{}, s.said(r.Context(), "", err)
	}
	resources := make([]scim.Resource, 0, len(all))
	for _, g := range all {
		resources = append(resources, s.resource(g))
	}
	found := page(r.Context(), resources, q)
	if strings.Contains(strings.ToLower(r.URL.Query().Get("excludedAttributes")), "members") {
		for _, one := range found.Resources {
			delete(one.Attributes, "members")
		}
	}
	return found, nil
}

func (s groups) change(r *http.Request, id string, f func(roster.DirGroup) (roster.DirGroup, error)) (scim.Resource, error) {
	g, err := s.store.ChangeDirGroup(r.Context(), id, s.act(), f)
	if err != nil {
		return scim.Resource{}, s.said(r.Context(), id, err)
	}
	s.log.InfoContext(r.Context(), "the directory changed a group", "group", g.Name, "members", len(g.Members))
	return s.resource(g), nil
}

// Replace implements [scim.ResourceHandler].
func (s groups) Replace(r *http.Request, id string, attributes scim.ResourceAttributes) (scim.Resource, error) {
	return s.change(r, id, func(g roster.DirGroup) (roster.DirGroup, error) {
		g.Members = nil
		return takeGroup(g, attributes)
	})
}

// Patch implements [scim.ResourceHandler].
func (s groups) Patch(r *http.Request, id string, operations []scim.PatchOperation) (scim.Resource, error) {
	return s.change(r, id, func(g roster.DirGroup) (roster.DirGroup, error) {
		var err error
		for _, o := range operations {
			if g, err = patchGroup(g, o); err != nil {
				return g, err
			}
		}
		return g, nil
	})
}

func patchGroup(g roster.DirGroup, o scim.PatchOperation) (roster.DirGroup, error) {
	if o.Path == nil {
		attributes, _ := o.Value.(map[string]any)
		if o.Op == scim.PatchOperationAdd {
			return addTo(g, attributes)
		}
		return takeGroup(g, attributes)
	}
	name := o.Path.AttributePath.AttributeName
	switch {
	case !strings.EqualFold(name, "members") && o.Op == scim.PatchOperationRemove:
		return g, invalid(name + " cannot be removed")
	case !strings.EqualFold(name, "members"):
		return takeGroup(g, map[string]any{name: o.Value})
	case o.Op == scim.PatchOperationRemove:
		return removeFrom(g, o)
	case o.Path.ValueExpression != nil:
		return g, invalid("a member is added or removed, and not changed")
	case o.Op == scim.PatchOperationAdd:
		return addTo(g, map[string]any{"members": o.Value})
	}
	return takeGroup(g, map[string]any{"members": o.Value})
}

// addTo adds to the members, and replaces the rest.
func addTo(g roster.DirGroup, attributes map[string]any) (roster.DirGroup, error) {
	had := g.Members
	g, err := takeGroup(g, attributes)
	g.Members = slices.Concat(had, g.Members)
	return g, err
}

// removeFrom removes the members that a value lists, or the path names; all
// of them, if neither does.
func removeFrom(g roster.DirGroup, o scim.PatchOperation) (roster.DirGroup, error) {
	gone, err := ids(o.Value)
	if err != nil {
		return g, err
	}
	if o.Path.ValueExpression != nil {
		e, ok := o.Path.ValueExpression.(*filter.AttributeExpression)
		id, text := "", false
		if ok {
			id, text = e.CompareValue.(string)
		}
		if !ok || !text || !strings.EqualFold(e.AttributePath.AttributeName, "value") || !strings.EqualFold(string(e.Operator), string(filter.EQ)) {
			return g, invalid(`name a member like members[value eq "ID"]`)
		}
		gone = append(gone, id)
	} else if o.Value == nil {
		gone = g.Members
	}
	g.Members = slices.DeleteFunc(slices.Clone(g.Members), func(id string) bool { return slices.Contains(gone, id) })
	return g, nil
}

// Delete implements [scim.ResourceHandler].
func (s groups) Delete(r *http.Request, id string) error {
	err := s.store.DropDirGroup(r.Context(), id, s.act())
	if err == nil {
		s.log.InfoContext(r.Context(), "the directory deleted a group", "id", id)
	}
	return s.said(r.Context(), id, err)
}
