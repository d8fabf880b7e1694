package scim_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
)

// Of a user's addresses one is kept: the one that a directory means for work.
func TestAddresses(t *testing.T) {
	d := newDesk(t)
	id := d.user("ana")
	const schema = "urn:ietf:params:scim:schemas:core:2.0:User"
	for _, c := range []struct{ name, operation, want string }{
		{"Entra ID replaces", `{"op":"Replace","path":"emails[type eq \"work\"].value","value":"a@example.com"}`, "a@example.com"},
		{"Entra ID adds", `{"op":"Add","path":"emails[type eq \"work\"].value","value":"b@example.com"}`, "b@example.com"},
		{"another of hers", `{"op":"Add","path":"emails[type eq \"home\"].value","value":"home@example.com"}`, "b@example.com"},
		{"how it is shown", `{"op":"replace","path":"emails[type eq \"work\"].display","value":"x@example.com"}`, "b@example.com"},
		{"one more", `{"op":"add","path":"emails","value":[{"type":"home","value":"home@example.com"}]}`, "b@example.com"},
		{"the primary one of many", `{"op":"replace","path":"emails","value":[{"type":"work","value":"w@example.com"},{"type":"home","primary":true,"value":"p@example.com"}]}`, "p@example.com"},
		{"that for work", `{"op":"replace","value":{"emails":[{"value":"x@example.com"},{"type":"work","value":"w@example.com"}]}}`, "w@example.com"},
		{"the first, with the name's schema", `{"op":"replace","value":{"` + schema + `:emails":[{"value":"x@example.com"},{"value":"y@example.com"}]}}`, "x@example.com"},
		{"by another's value", `{"op":"remove","path":"emails[value eq \"y@example.com\"]"}`, "x@example.com"},
		{"by its value", `{"op":"remove","path":"emails[value eq \"x@example.com\"]"}`, ""},
		{"by what is primary", `{"op":"add","path":"emails[primary eq true].value","value":"c@example.com"}`, "c@example.com"},
		{"all are removed", `{"op":"remove","path":"emails"}`, ""},
		{"added to none", `{"op":"add","path":"emails","value":[{"type":"home","value":"home@example.com"}]}`, "home@example.com"},
		{"what is no address, besides", `{"op":"add","path":"emails","value":[{"type":"work","value":"no address"}]}`, "home@example.com"},
		{"replaced by none", `{"op":"replace","path":"emails","value":null}`, ""},
		{"what is said of something else", `{"op":"replace","path":"displayName","value":"Ana"}`, ""},
		{"back again", `{"op":"replace","path":"urn:ietf:params:scim:schemas:core:2.0:User:emails","value":[{"value":"ana@example.com"}]}`, "ana@example.com"},
		{"with a header behind it", `{"op":"replace","path":"emails[type eq \"work\"].value","value":"ana@example.com\r\nBcc: eve@example.com"}`, ""},
	} {
		d.want(200, "PATCH", users+"/"+id, patchOf(c.operation))
		if got := d.person("ana").Email; got != c.want {
			t.Errorf("%s: %q and not %q", c.name, got, c.want)
		}
	}
	// An address that is none keeps nobody in who is gone.
	d.want(200, "PATCH", users+"/"+id, patchOf(`{"op":"replace","value":{"active":false,"emails":[{"value":"no address"}]}}`))
	if p := d.person("ana"); !p.Disabled || p.Email != "" {
		t.Errorf("%+v", p)
	}
}

// What is kept is told and searched for; the record says that it changed, and not
// to what. Of whom the directory says no address, an admin's stands.
func TestAnAddressIsToldToTheDirectoryAlone(t *testing.T) {
	d := newDesk(t)
	act := roster.Act{By: "ada", At: time.Now()}
	_, err := d.store.AddPerson(t.Context(), roster.Person{Name: "ben", Email: "ben@example.org"}, act)
	d.must(err)
	d.want(201, "POST", users, `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"ben@example.com"}`)
	if got := d.person("ben").Email; got != "ben@example.org" {
		t.Errorf("%q", got)
	}
	d.user("ana")
	v := d.want(200, "GET", users+"?filter="+url.QueryEscape(`emails[type eq "work" and value eq "ana@example.com"]`), "")
	if v["totalResults"] != 1.0 || v["Resources"].([]any)[0].(map[string]any)["emails"].([]any)[0].(map[string]any)["value"] != "ana@example.com" {
		t.Errorf("%v", v)
	}
	all, err := d.store.Events(t.Context(), roster.Search{Limit: 100})
	d.must(err)
	told := 0
	for _, e := range all {
		if strings.Contains(e.Entry.Text, "set the mail address of ana") {
			told++
		}
		if strings.Contains(e.Entry.Text, "ana@example.com") && !strings.Contains(e.Entry.Text, "is kept by the directory") {
			t.Errorf("the record has %q", e.Entry.Text)
		}
	}
	if told != 1 {
		t.Errorf("the record tells it %d times", told)
	}
}
