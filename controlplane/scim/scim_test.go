package scim_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/controlplane/scim"
	"curfew.internal/controlplane/store"
)

const (
	token = "0123456789abcdef0123456789abcdef"
	users = "/scim/v2/Users"
	group = "/scim/v2/Groups"
)

// desk is a fleet with ada, its admin, and a directory that is let in.
type desk struct {
	*testing.T
	store *store.Store
	url   string
	token string
	log   *bytes.Buffer
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{T: t, token: token, log: &bytes.Buffer{}}
	var err error
	d.store, err = store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), "lab")
	d.must(err)
	t.Cleanup(func() { d.must(d.store.Close()) })
	_, err = d.store.AddPerson(t.Context(), roster.Person{Name: "ada", Admin: true}, roster.Act{By: "root", At: time.Now()})
	d.must(err)
	file := filepath.Join(t.TempDir(), "token")
	d.must(os.WriteFile(file, []byte(token+"\n"), 0o600))
	s, err := scim.New(&scim.Config{TokenFile: file, Domain: "example.com"}, "https://curfew.example", d.store, clock.System{}, slog.New(slog.NewTextHandler(d.log, nil)))
	d.must(err)
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	d.url = srv.URL
	return d
}

func (d *desk) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// call makes a call, and returns its status and the object that it answers.
func (d *desk) call(method, path, body string) (int, map[string]any) {
	d.Helper()
	r, err := http.NewRequestWithContext(d.Context(), method, d.url+path, strings.NewReader(body))
	d.must(err)
	r.Header.Set("Content-Type", "application/scim+json")
	r.Header.Set("Authorization", "Bearer "+d.token)
	a, err := http.DefaultClient.Do(r)
	d.must(err)
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	d.must(err)
	var v map[string]any
	_ = json.Unmarshal(b, &v) // there may be none
	return a.StatusCode, v
}

// want makes a call that has to be answered so.
func (d *desk) want(status int, method, path, body string) map[string]any {
	d.Helper()
	got, v := d.call(method, path, body)
	if got != status {
		d.Fatalf("%s %s: %d and not %d: %v", method, path, got, status, v)
	}
	return v
}

func (d *desk) person(name string) roster.Person {
	d.Helper()
	p, err := d.store.Person(d.Context(), name)
	d.must(err)
	return p
}

// user makes a user, as Entra ID does, and returns its id.
func (d *desk) user(name string) string {
	d.Helper()
	v := d.want(201, "POST", users, fmt.Sprintf(`{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User","urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"],
		"externalId":"ext-%s","userName":"%s@Example.com","active":true,"displayName":"%s","emails":[{"primary":true,"type":"work","value":"%s@example.com"}],
		"meta":{"resourceType":"User"},"name":{"formatted":"x","familyName":"y","givenName":"z"},"roles":[]}`, name, name, strings.ToUpper(name), name))
	return v["id"].(string)
}

func patchOf(operations string) string {
	return `{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":[` + operations + `]}`
}

// signedIn gives somebody a browser that is signed in.
func (d *desk) signedIn(name string) (stands func() bool) {
	d.Helper()
	now := time.Now()
	id := "w-" + name + now.String()
	d.must(d.store.AddSession(d.Context(), roster.Session{ID: id, Person: name, Browser: true, Name: "x", Begun: now, Expires: now.Add(time.Hour), Proved: now}, now))
	return func() bool {
		_, _, err := d.store.Session(d.Context(), id, now)
		return err == nil
	}
}

func TestUserIsTakenUp(t *testing.T) {
	d := newDesk(t)
	id := d.user("ana")
	if p := d.person("ana"); p.FullName != "ANA" || p.Admin || p.Disabled || p.Enrolled {
		t.Errorf("%+v", p)
	}
	v := d.want(200, "GET", users+"/"+id, "")
	if v["userName"] != "ana@Example.com" || v["externalId"] != "ext-ana" || v["active"] != true || v["meta"].(map[string]any)["location"] != "https://curfew.example/scim/v2/Users/"+id {
		t.Errorf("%v", v)
	}
	for _, c := range []struct {
		name, body string
		status     int
	}{
		{"the same again", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"ANA@example.com"}`, 409},
		{"of another domain", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"ben@example.org"}`, 400},
		{"with a name that no account has", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"../ben@example.com"}`, 400},
		{"with a name that only looks like one", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"\u212aarl@example.com"}`, 400},
		{"with the name by which the record knows the directory", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"curfew-scim@example.com"}`, 400},
		{"without a name", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"active":true}`, 400},
		{"with a full name that does not show", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"ben@example.com","displayName":"a\u202eb"}`, 400},
		{"that is no JSON", `{`, 400},
	} {
		if got, v := d.call("POST", users, c.body); got != c.status {
			t.Errorf("%s: %d %v", c.name, got, v)
		}
	}
	d.want(404, "GET", users+"/u-none", "")
	d.want(404, "PATCH", users+"/u-none", patchOf(`{"op":"replace","path":"active","value":false}`))
}

// A directory asks for each user before it makes her.
func TestFilterAndPages(t *testing.T) {
	d := newDesk(t)
	for _, name := range []string{"ana", "ben", "cleo"} {
		d.user(name)
	}
	for _, c := range []struct {
		filter string
		total  float64
	}{
		{`userName eq "BEN@example.com"`, 1},
		{`userName eq "eve@example.com"`, 0},
		{`externalId eq "ext-cleo"`, 1},
		{`active eq true`, 3},
		{``, 3},
		{`userName eq "ana@example.com" or userName eq "ben@example.com"`, 2},
	} {
		v := d.want(200, "GET", users+"?filter="+url.QueryEscape(c.filter), "")
		if v["totalResults"] != c.total {
			t.Errorf("%s: %v", c.filter, v)
		}
	}
	d.want(400, "GET", users+"?filter="+url.QueryEscape(`userName eq`), "")
	var names []any
	for start := 1; start < 5; start += 2 {
		v := d.want(200, "GET", fmt.Sprintf("%s?startIndex=%d&count=2", users, start), "")
		if v["totalResults"] != 3.0 {
			t.Errorf("%v", v)
		}
		for _, r := range v["Resources"].([]any) {
			names = append(names, r.(map[string]any)["userName"])
		}
	}
	if !slices.Equal(names, []any{"ana@Example.com", "ben@Example.com", "cleo@Example.com"}) {
		t.Errorf("%v", names)
	}
	if v := d.want(200, "GET", "/scim/v2/ServiceProviderConfig", ""); v["patch"].(map[string]any)["supported"] != true {
		t.Errorf("%v", v)
	}
	d.want(200, "GET", "/scim/v2/Schemas", "")
	d.want(200, "GET", "/scim/v2/ResourceTypes", "")
}

func TestDeactivatedUserIsDisabled(t *testing.T) {
	for name, end := range map[string]func(*desk, string){
		"as the standard has it": func(d *desk, id string) {
			d.want(200, "PATCH", users+"/"+id, patchOf(`{"op":"replace","path":"active","value":false}`))
		},
		"as Entra ID writes it": func(d *desk, id string) {
			d.want(200, "PATCH", users+"/"+id, patchOf(`{"op":"Replace","path":"active","value":"False"}`))
		},
		"as Okta writes it": func(d *desk, id string) {
			d.want(200, "PATCH", users+"/"+id, patchOf(`{"op":"replace","value":{"active":false}}`))
		},
		"as Entra ID wrote it": func(d *desk, id string) {
			d.want(200, "PATCH", users+"/"+id, patchOf(`{"op":"Replace","path":"active","value":[{"$ref":null,"value":"False"}]}`))
		},
		"wrapped, with the path's schema": func(d *desk, id string) {
			d.want(200, "PATCH", users+"/"+id, patchOf(`{"op":"replace","path":"urn:ietf:params:scim:schemas:core:2.0:User:active","value":{"value":false}}`))
		},
		"wrapped, without a path": func(d *desk, id string) {
			d.want(200, "PATCH", users+"/"+id, patchOf(`{"op":"replace","value":{"active":[{"value":"false"}]}}`))
		},
		"with the name's schema": func(d *desk, id string) {
			d.want(200, "PATCH", users+"/"+id, patchOf(`{"op":"replace","value":{"urn:ietf:params:scim:schemas:core:2.0:User:active":false}}`))
		},
		"in the schema": func(d *desk, id string) {
			d.want(200, "PATCH", users+"/"+id, patchOf(`{"op":"replace","value":{"urn:ietf:params:scim:schemas:core:2.0:User":{"active":false}}}`))
		},
		"with another manager, as Entra ID writes her": func(d *desk, id string) {
			d.want(200, "PATCH", users+"/"+id, patchOf(`{"op":"Add","path":"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager","value":"`+id+`"},
				{"op":"Replace","path":"active","value":"False"}`))
		},
		"as a whole": func(d *desk, id string) {
			d.want(200, "PUT", users+"/"+id, `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"ana@example.com","active":false}`)
		},
		"deleted": func(d *desk, id string) {
			d.want(204, "DELETE", users+"/"+id, "")
			d.want(404, "GET", users+"/"+id, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			id := d.user("ana")
			stands := d.signedIn("ana")
			end(d, id)
			if !d.person("ana").Disabled || stands() {
				t.Error("she is not disabled, or signed in still")
			}
			// Her name is not given again, not even to herself.
			if got, v := d.call("POST", users, `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"ana@example.com"}`); got != 409 {
				t.Errorf("%d %v", got, v)
			}
		})
	}
}

func TestWhoComesBack(t *testing.T) {
	d := newDesk(t)
	id := d.user("ana")
	off, on := patchOf(`{"op":"replace","path":"active","value":false}`), patchOf(`{"op":"replace","path":"active","value":true}`)
	arrive := func(bind bool) error {
		now := time.Now()
		return d.store.Arrive(t.Context(), roster.Arrival{
			Account: roster.Account{Issuer: "https://login.example", Subject: "sub", Person: "ana"}, Bind: bind,
			Session: roster.Session{ID: "w-" + now.String(), Person: "ana", Browser: true, Name: "x", Begun: now, Expires: now.Add(time.Hour)},
		}, now)
	}
	d.must(arrive(true))
	d.want(200, "PATCH", users+"/"+id, off)
	if v := d.want(200, "PATCH", users+"/"+id, on); v["active"] != true || d.person("ana").Disabled {
		t.Errorf("whom the directory ended does not come back: %v", v)
	}
	if err := arrive(false); !errors.Is(err, roster.ErrUnknown) {
		t.Errorf("she has something to prove herself with, her account of before: %v", err)
	}
	d.want(200, "PATCH", users+"/"+id, off)
	_, err := d.store.DisablePerson(t.Context(), "ana", roster.Act{By: "ada", At: time.Now()})
	d.must(err)
	if v := d.want(200, "PATCH", users+"/"+id, on); v["active"] != false || !d.person("ana").Disabled {
		t.Errorf("whom an admin disabled after the directory comes back: %v", v)
	}
}

func TestWhomAnAdminDisabled(t *testing.T) {
	d := newDesk(t)
	id := d.user("ana")
	off, on := patchOf(`{"op":"replace","path":"active","value":false}`), patchOf(`{"op":"replace","path":"active","value":true}`)
	_, err := d.store.DisablePerson(t.Context(), "ana", roster.Act{By: "ada", At: time.Now()})
	d.must(err)
	d.want(200, "PATCH", users+"/"+id, off)
	if v := d.want(200, "PATCH", users+"/"+id, on); v["active"] != false || !d.person("ana").Disabled {
		t.Errorf("whom an admin disabled comes back: %v", v)
	}
}

func TestPersonOfTheFleetsOwn(t *testing.T) {
	d := newDesk(t)
	id := d.user("ada")
	if !d.person("ada").Admin {
		t.Error("she is no admin any more")
	}
	d.want(409, "PATCH", users+"/"+id, patchOf(`{"op":"replace","path":"active","value":false}`))
	d.want(409, "DELETE", users+"/"+id, "")
	if d.person("ada").Disabled {
		t.Error("the last admin is gone")
	}
	_, err := d.store.AddPerson(t.Context(), roster.Person{Name: "amy", Admin: true}, roster.Act{By: "root", At: time.Now()})
	d.must(err)
	d.want(200, "PATCH", users+"/"+id, patchOf(`{"op":"replace","path":"active","value":false}`))
	if !d.person("ada").Disabled {
		t.Error("an admin who left is still one")
	}
}

func TestWhatIsNotKept(t *testing.T) {
	d := newDesk(t)
	id := d.user("ana")
	v := d.want(200, "PATCH", users+"/"+id, patchOf(`{"op":"Add","path":"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department","value":"IT"},
		{"op":"Replace","path":"emails[type eq \"work\"].value","value":"x@example.com"},{"op":"Replace","path":"name.familyName","value":"Q"},
		{"op":"Add","path":"displayName","value":"Ana Ortiz"},{"op":"Replace","path":"userName","value":"ana.ortiz@example.com"}`))
	if v["displayName"] != "Ana Ortiz" || v["userName"] != "ana.ortiz@example.com" || d.person("ana").FullName != "Ana Ortiz" {
		t.Errorf("%v", v)
	}
	d.want(400, "PATCH", users+"/"+id, patchOf(`{"op":"remove","path":"userName"}`))
	d.want(400, "PATCH", users+"/"+id, patchOf(`{"op":"replace","path":"nonsense","value":1}`))
	// All of it or nothing.
	d.want(400, "PATCH", users+"/"+id, patchOf(`{"op":"replace","path":"active","value":false},{"op":"replace","path":"userName","value":""}`))
	if d.person("ana").Disabled {
		t.Error("half of what was refused was done")
	}
}

// members are who is in the SRE team, by the policy's eyes.
func (d *desk) members() []string {
	d.Helper()
	all, err := d.store.Directory(d.Context())
	d.must(err)
	return all.Members["SRE team"]
}

func TestGroups(t *testing.T) {
	d := newDesk(t)
	ana, ben, cleo := d.user("ana"), d.user("ben"), d.user("cleo")
	v := d.want(201, "POST", group, `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"],"externalId":"e1","displayName":"SRE team","members":[{"value":"`+ana+`"}]}`)
	id := v["id"].(string)
	for _, c := range []struct {
		name, operations string
		want             []string
	}{
		{"Entra ID adds", `{"op":"Add","path":"members","value":[{"value":"` + ben + `"}]}`, []string{"ana", "ben"}},
		{"Entra ID adds again", `{"op":"Add","path":"members","value":[{"value":"` + ben + `"},{"value":"` + cleo + `"}]}`, []string{"ana", "ben", "cleo"}},
		{"Entra ID removes", `{"op":"Remove","path":"members","value":[{"value":"` + ana + `"}]}`, []string{"ben", "cleo"}},
		{"by the path", `{"op":"remove","path":"members[value eq \"` + cleo + `\"]"}`, []string{"ben"}},
		{"Okta replaces", `{"op":"replace","path":"members","value":[{"value":"` + ana + `","display":"ana"}]}`, []string{"ana"}},
		{"Okta renames, with the id", `{"op":"replace","value":{"id":"` + id + `","displayName":"SRE"}}`, nil},
		{"and names it again", `{"op":"replace","path":"displayName","value":"SRE team"}`, []string{"ana"}},
		{"all are removed", `{"op":"remove","path":"members"}`, nil},
		{"replaced with the name's schema", `{"op":"replace","value":{"urn:ietf:params:scim:schemas:core:2.0:Group:members":[{"value":"` + ben + `"}]}}`, []string{"ben"}},
		{"replaced in the schema", `{"op":"replace","value":{"urn:ietf:params:scim:schemas:core:2.0:Group":{"members":[]}}}`, nil},
		{"added without a path", `{"op":"add","value":{"members":[{"value":"` + ana + `"}]}}`, []string{"ana"}},
	} {
		d.want(200, "PATCH", group+"/"+id, patchOf(c.operations))
		if got := d.members(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	for _, c := range []struct {
		name, operations string
	}{
		{"a member who is not known", `{"op":"add","path":"members","value":[{"value":"u-none"}]}`},
		{"a group in a group", `{"op":"add","path":"members","value":[{"value":"` + id + `","type":"Group"}]}`},
		{"a member without an id", `{"op":"add","path":"members","value":[{"display":"x"}]}`},
		{"whoever is called so", `{"op":"remove","path":"members[display eq \"ana\"]"}`},
		{"the name", `{"op":"remove","path":"displayName"}`},
	} {
		d.want(400, "PATCH", group+"/"+id, patchOf(c.operations))
		if got := d.members(); !slices.Equal(got, []string{"ana"}) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	d.want(409, "POST", group, `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"],"displayName":"SRE team"}`)
	v = d.want(200, "GET", group+"?excludedAttributes=members&filter="+url.QueryEscape(`displayName eq "SRE team"`), "")
	if one := v["Resources"].([]any)[0].(map[string]any); v["totalResults"] != 1.0 || one["members"] != nil || one["externalId"] != "e1" {
		t.Errorf("%v", v)
	}
	d.want(200, "PATCH", users+"/"+ana, patchOf(`{"op":"replace","path":"active","value":false}`))
	if got := d.members(); got != nil {
		t.Errorf("who is disabled is a member: %v", got)
	}
	d.want(200, "PUT", group+"/"+id, `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"],"displayName":"SRE team","members":[{"value":"`+ben+`"}]}`)
	if got := d.members(); !slices.Equal(got, []string{"ben"}) {
		t.Errorf("%v", got)
	}
	d.want(204, "DELETE", group+"/"+id, "")
	if got := d.members(); got != nil {
		t.Errorf("the group is gone: %v", got)
	}
}

func TestManager(t *testing.T) {
	d := newDesk(t)
	ana, ben := d.user("ana"), d.user("ben")
	const schema = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
	for _, c := range []struct{ name, operation, want string }{
		{"as the standard has it", `{"op":"add","path":"` + schema + `:manager","value":{"value":"` + ben + `"}}`, "ben"},
		{"taken away", `{"op":"remove","path":"` + schema + `:manager"}`, ""},
		{"by its value", `{"op":"replace","path":"` + schema + `:manager.value","value":"` + ben + `"}`, "ben"},
		{"somebody who is not known", `{"op":"replace","value":{"` + schema + `":{"manager":{"value":"u-none"}}}}`, ""},
		{"without a path", `{"op":"replace","value":{"` + schema + `":{"manager":{"value":"` + ben + `"}}}}`, "ben"},
		{"taken away again", `{"op":"Remove","path":"` + schema + `:manager"}`, ""},
		{"as Entra ID writes it", `{"op":"Add","path":"` + schema + `:manager","value":"` + ben + `"}`, "ben"},
		{"replaced by nobody", `{"op":"Replace","path":"` + schema + `:manager","value":""}`, ""},
		{"as older ones write it", `{"op":"Add","Path":"` + schema + `:Manager","Value":[{"$ref":"x","value":"` + ben + `"}]}`, "ben"},
		{"taken away once more", `{"op":"Remove","path":"` + schema + `:manager"}`, ""},
		{"in its schema, the id alone", `{"op":"replace","value":{"` + schema + `":{"manager":"` + ben + `"}}}`, "ben"},
		{"taken away at last", `{"op":"Remove","path":"` + schema + `:manager"}`, ""},
		{"named in full, the id alone", `{"op":"replace","value":{"` + schema + `:manager":"` + ben + `"}}`, "ben"},
	} {
		d.want(200, "PATCH", users+"/"+ana, patchOf(c.operation))
		if all, err := d.store.Directory(t.Context()); err != nil || all.Managers["ana"] != c.want {
			t.Errorf("%s: %v, %v", c.name, all.Managers, err)
		}
	}
	d.want(201, "POST", users, `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User","`+schema+`"],"userName":"dan@example.com","`+schema+`":{"manager":"`+ben+`"}}`)
	if all, err := d.store.Directory(t.Context()); err != nil || all.Managers["dan"] != "ben" {
		t.Errorf("made with a manager as Entra ID writes her: %v, %v", all.Managers, err)
	}
	v := d.want(200, "GET", users+"/"+ana, "")
	if m, _ := v[schema].(map[string]any); fmt.Sprint(m["manager"]) != "map[value:"+ben+"]" {
		t.Errorf("%v", v)
	}
}

func TestTheDirectoryAlone(t *testing.T) {
	d := newDesk(t)
	for _, wrong := range []string{"", "x", token[1:], token + "0", strings.ToUpper(token)} {
		d.token = wrong
		if got, _ := d.call("GET", users, ""); got != http.StatusUnauthorized {
			t.Errorf("with %q: %d", wrong, got)
		}
	}
	for range 20 { // guesses are few
		d.call("GET", users, "")
	}
	if got, _ := d.call("GET", users, ""); got != http.StatusTooManyRequests {
		t.Errorf("guessing on: %d", got)
	}
	d.token = token
	d.want(200, "GET", users, "") // who has it is not kept out by who has not
	if got, _ := d.call("POST", users, `{"userName":"`+strings.Repeat("x", 2<<20)+`"}`); got != 400 {
		t.Errorf("a body without end: %d", got)
	}
	if strings.Contains(d.log.String(), token) {
		t.Error("the log holds the token")
	}
}

func TestConfig(t *testing.T) {
	if err := (&scim.Config{TokenFile: "x", Domain: "@x"}).Check(); err == nil || !strings.Contains(err.Error(), "scim.token_file") || !strings.Contains(err.Error(), "scim.domain") {
		t.Errorf("%v", err)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := scim.New(&scim.Config{TokenFile: file}, "", nil, clock.System{}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "32 characters") {
		t.Errorf("%v", err)
	}
}
