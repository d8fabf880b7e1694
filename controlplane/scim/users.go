package scim

import (
	"crypto/rand"
	"net/http"
	"strings"
	"unicode"

	"github.com/elimity-com/scim"
	"github.com/elimity-com/scim/optional"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// users answers for /Users.
type users struct{ *Server }

func (s users) resource(u roster.DirUser) scim.Resource {
	r := scim.Resource{
		ID: u.ID, ExternalID: external(u.ExternalID), Meta: scim.Meta{Created: &u.Created, LastModified: &u.Changed},
		Attributes: scim.ResourceAttributes{"userName": u.UserName, "displayName": u.FullName, "active": u.Active},
	}
	if u.Email != "" {
		r.Attributes["emails"] = emailsOf(u.Email)
	}
	if u.Manager != "" {
		r.Attributes[enterpriseSchema] = map[string]any{"manager": map[string]any{"value": u.Manager}}
	}
	return r
}

func external(id string) optional.String {
	if id == "" {
		return optional.String{}
	}
	return optional.NewString(id)
}

// person is whom a user's name means here; empty: nobody.
func (s *Server) person(userName string) string {
	name := userName
	if s.config.Domain != "" {
		at := strings.LastIndexByte(name, '@')
		if at < 0 || !strings.EqualFold(name[at+1:], s.config.Domain) {
			return ""
		}
		name = name[:at]
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) || grant.CheckPerson(strings.ToLower(name)) != nil {
		return ""
	}
	return strings.ToLower(name)
}

// take takes up what attributes say of a user, those alone that we keep.
func take(u roster.DirUser, attributes map[string]any) (roster.DirUser, error) {
	var err error
	for key, v := range attributes {
		// A name may be written out with its schema, and they all in one of it.
		switch strings.TrimPrefix(strings.ToLower(key), core+":") {
		case core:
			more, _ := v.(map[string]any)
			u, err = take(u, more)
		case "username":
			if u.UserName, err = text("userName", v, 200); err == nil && u.UserName == "" {
				err = invalid("userName is empty")
			}
		case "externalid":
			u.ExternalID, err = text("externalId", v, 200)
		case "displayname":
			u.FullName, err = text("displayName", v, 100)
		case "emails":
			u.Email, _ = emailOf(v)
		case enterprise:
			more, _ := v.(map[string]any)
			if m, told := more["manager"]; told {
				u.Manager, err = managerOf(m)
			}
		case enterprise + ":manager":
			u.Manager, err = managerOf(v)
		case "active":
			active, ok := v.(bool)
			if u.Active = ok && active; !ok {
				err = invalid("active is true or false")
			}
		}
		if err != nil {
			return u, err
		}
	}
	return u, nil
}

// managerOf is the id that a value of the attribute manager names.
func managerOf(v any) (string, error) {
	m, _ := v.(map[string]any)
	return text("manager", m["value"], 200)
}

// named is the full name that attributes give, in one of the ways in which
// directories do.
func named(attributes map[string]any) map[string]any {
	if name, _ := attributes["displayName"].(string); name != "" {
		return attributes
	}
	parts, _ := attributes["name"].(map[string]any)
	full, _ := parts["formatted"].(string)
	if full == "" {
		given, _ := parts["givenName"].(string)
		family, _ := parts["familyName"].(string)
		full = strings.TrimSpace(given + " " + family)
	}
	if full != "" {
		attributes["displayName"] = full
	}
	return attributes
}

// Create implements [scim.ResourceHandler].
func (s users) Create(r *http.Request, attributes scim.ResourceAttributes) (scim.Resource, error) {
	u, err := take(roster.DirUser{ID: "u-" + strings.ToLower(rand.Text()), Active: true}, named(attributes))
	if err == nil {
		if u.Person = s.person(u.UserName); u.Person == "" {
			err = invalid("userName is no name of an account here: a-z, 0-9, _ and -, with the fleet's domain behind it if it has one")
		}
	}
	if err == nil {
		u, err = s.store.AddDirUser(r.Context(), u, s.act())
	}
	if err != nil {
		return scim.Resource{}, s.said(r.Context(), u.ID, err)
	}
	s.log.InfoContext(r.Context(), "the directory keeps a person", "person", u.Person, "active", u.Active)
	return s.resource(u), nil
}

// Get implements [scim.ResourceHandler].
func (s users) Get(r *http.Request, id string) (scim.Resource, error) {
	u, err := s.store.DirUser(r.Context(), id)
	return s.resource(u), s.said(r.Context(), id, err)
}

// GetAll implements [scim.ResourceHandler].
func (s users) GetAll(r *http.Request, q scim.ListRequestParams) (scim.Page, error) {
	all, err := s.store.DirUsers(r.Context())
	if err != nil {
		return scim.Page{}, s.said(r.Context(), "", err)
	}
	resources := make([]scim.Resource, 0, len(all))
	for _, u := range all {
		resources = append(resources, s.resource(u))
	}
	return page(r.Context(), resources, q), nil
}

func (s users) change(r *http.Request, id string, f func(roster.DirUser) (roster.DirUser, error)) (scim.Resource, error) {
	u, err := s.store.ChangeDirUser(r.Context(), id, s.act(), f)
	if err != nil {
		return scim.Resource{}, s.said(r.Context(), id, err)
	}
	s.log.InfoContext(r.Context(), "the directory changed a person", "person", u.Person, "active", u.Active)
	return s.resource(u), nil
}

// Replace implements [scim.ResourceHandler].
func (s users) Replace(r *http.Request, id string, attributes scim.ResourceAttributes) (scim.Resource, error) {
	return s.change(r, id, func(u roster.DirUser) (roster.DirUser, error) { return take(u, named(attributes)) })
}

// Patch implements [scim.ResourceHandler].
func (s users) Patch(r *http.Request, id string, operations []scim.PatchOperation) (scim.Resource, error) {
	return s.change(r, id, func(u roster.DirUser) (roster.DirUser, error) {
		var err error
		for _, o := range operations {
			if u, err = patch(u, o); err != nil {
				return u, err
			}
		}
		return u, nil
	})
}

func patch(u roster.DirUser, o scim.PatchOperation) (roster.DirUser, error) {
	switch {
	case o.Path == nil:
		attributes, _ := o.Value.(map[string]any)
		return take(u, named(attributes))
	case o.Path.AttributePath.URI() == enterpriseSchema && strings.EqualFold(o.Path.AttributePath.AttributeName, "manager"):
		return patchManager(u, o)
	case ofCore(o) && strings.EqualFold(o.Path.AttributePath.AttributeName, "emails"):
		return patchEmails(u, o), nil
	case !ofCore(o), o.Path.AttributePath.SubAttribute != nil, o.Path.ValueExpression != nil:
		return u, nil // of what we do not keep
	case o.Op == scim.PatchOperationRemove:
		if strings.EqualFold(o.Path.AttributePath.AttributeName, "userName") || strings.EqualFold(o.Path.AttributePath.AttributeName, "active") {
			return u, invalid(o.Path.AttributePath.AttributeName + " cannot be removed")
		}
		return take(u, map[string]any{o.Path.AttributePath.AttributeName: ""})
	}
	return take(u, map[string]any{o.Path.AttributePath.AttributeName: o.Value})
}

// ofCore reports whether an operation is on an attribute of the core schema.
func ofCore(o scim.PatchOperation) bool {
	uri := o.Path.AttributePath.URI()
	return uri == "" || uri == userSchema
}

func patchManager(u roster.DirUser, o scim.PatchOperation) (roster.DirUser, error) {
	var err error
	sub := o.Path.AttributePath.SubAttributeName() + o.Path.SubAttributeName()
	switch {
	case o.Op == scim.PatchOperationRemove:
		u.Manager = ""
	case strings.EqualFold(sub, "value"):
		u.Manager, err = text("manager", o.Value, 200)
	case sub == "":
		u.Manager, err = managerOf(o.Value)
	}
	return u, err
}

const (
	userSchema       = "urn:ietf:params:scim:schemas:core:2.0:User"
	groupSchema      = "urn:ietf:params:scim:schemas:core:2.0:Group"
	enterpriseSchema = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
)

// The same in small letters, as attributes are compared.
var core, enterprise = strings.ToLower(userSchema), strings.ToLower(enterpriseSchema)

// Delete implements [scim.ResourceHandler].
func (s users) Delete(r *http.Request, id string) error {
	err := s.store.DropDirUser(r.Context(), id, s.act())
	if err == nil {
		s.log.InfoContext(r.Context(), "the directory deleted a person", "user", id)
	}
	return s.said(r.Context(), id, err)
}
