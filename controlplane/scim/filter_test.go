package scim_test

import (
	"log/slog"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/elimity-com/scim/schema"

	"curfew.internal/clock"
	"curfew.internal/controlplane/scim"
)

// Entra ID asks whom a resource refers to before it changes that.
func TestFilterByReference(t *testing.T) {
	d := newDesk(t)
	ana, ben, cleo := d.user("ana"), d.user("ben"), d.user("cleo")
	const schema = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
	d.want(200, "PATCH", users+"/"+ana, patchOf(`{"op":"add","path":"`+schema+`:manager","value":"`+ben+`"}`))
	v := d.want(201, "POST", group, `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"],"displayName":"SRE team","members":[{"value":"`+ana+`"},{"value":"`+ben+`"}]}`)
	sre := v["id"].(string)
	for _, c := range []struct {
		name, path, filter string
		total              float64
	}{
		{"her manager", users, `id eq "` + ana + `" and manager eq "` + ben + `"`, 1},
		{"somebody else is not", users, `id eq "` + ana + `" and manager eq "` + cleo + `"`, 0},
		{"whom he manages", users, `manager eq "` + ben + `"`, 1},
		{"by the name in full", users, schema + `:manager.value Eq "` + ben + `"`, 1},
		{"and nobody else's", users, `manager eq "` + ben + `" and (userName eq "ben@example.com" or userName eq "cleo@example.com")`, 0},
		{"and one of those whom he manages", users, `(userName eq "ben@example.com" or userName eq "ana@example.com") and manager eq "` + ben + `"`, 1},
		{"a member", group, `id eq "` + sre + `" and members eq "` + ben + `"`, 1},
		{"who is none", group, `id eq "` + sre + `" and members eq "` + cleo + `"`, 0},
		{"both", group, `members eq "` + ana + `" and members.value eq "` + ben + `"`, 1},
		{"one is none", group, `members eq "` + ana + `" and members.value eq "` + cleo + `"`, 0},
		{"in the list", group, `members[value eq "` + ben + `"]`, 1},
	} {
		v := d.want(200, "GET", c.path+"?excludedAttributes=members&attributes=id&filter="+url.QueryEscape(c.filter), "")
		if v["totalResults"] != c.total {
			t.Errorf("%s: %v", c.name, v)
		}
		for _, r := range v["Resources"].([]any) {
			if r.(map[string]any)["members"] != nil {
				t.Errorf("%s: with the members that were not asked for: %v", c.name, r)
			}
		}
	}
	for _, c := range []struct{ name, path, filter string }{
		{"a name as a whole", users, `name eq "x"`},
		{"mail as a whole", users, `not (emails eq "x")`},
		{"a member or another thing", group, `members eq "x" or displayName eq "y"`},
		{"what is kept about it", users, `meta eq "x"`},
	} {
		if got, v := d.call("GET", c.path+"?filter="+url.QueryEscape(c.filter), ""); got != 400 {
			t.Errorf("%s: %d %v", c.name, got, v)
		}
	}
}

// hurried is a clock by which a minute passes between any two looks.
type hurried struct {
	clock.System
	looks *int
}

// Now implements [clock.Clock].
func (h hurried) Now() clock.Reading {
	*h.looks++
	return clock.Reading{Wall: time.Unix(int64(60**h.looks), 0)}
}

// The library falls over filters that it does not expect: none of a name, an
// operator and a value is left without an answer.
func TestEveryFilterIsAnswered(t *testing.T) {
	d := newDesk(t)
	d.want(201, "POST", group, `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"],"displayName":"SRE team","externalId":"e","members":[{"value":"`+d.user("ana")+`"}]}`)
	var names []string
	for _, s := range []schema.Attributes{
		schema.CoreUserSchema().Attributes, schema.CoreGroupSchema().Attributes, schema.ExtensionEnterpriseUser().Attributes, schema.CommonAttributes(),
	} {
		for _, a := range s {
			names = append(names, a.Name())
			for _, sub := range a.SubAttributes() {
				names = append(names, a.Name()+"."+sub.Name(), a.Name()+"["+sub.Name())
			}
		}
	}
	file := filepath.Join(t.TempDir(), "token")
	d.must(os.WriteFile(file, []byte(token), 0o600))
	server, err := scim.New(&scim.Config{TokenFile: file}, "https://curfew.example", d.store, hurried{looks: new(int)}, slog.New(slog.DiscardHandler))
	d.must(err)
	answered := func(path, filter string) (status int) {
		defer func() {
			if recover() != nil {
				status = 0
			}
		}()
		r := httptest.NewRequestWithContext(t.Context(), "GET", path+"?filter="+url.QueryEscape(filter), nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		return w.Code
	}
	for _, name := range names {
		for _, operator := range []string{"eq", "gt"} {
			for _, value := range []string{`"x"`, "true"} {
				filter := name + " " + operator + " " + value
				if strings.Contains(name, "[") {
					filter += "]"
				}
				for _, path := range []string{users, group} {
					if got := answered(path, filter); got != 200 && got != 400 {
						t.Errorf("%s?filter=%s: %d", path, filter, got)
					}
				}
			}
		}
	}
}
