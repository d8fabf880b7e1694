package scim_test

import (
	"strings"
	"testing"
)

const enterpriseUser = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"

// Whoever left is out also where the same PATCH says what we cannot read.
func TestWhatIsBesideALeaving(t *testing.T) {
	const leaves = `{"op":"replace","path":"active","value":false}`
	for name, operations := range map[string]string{
		"a schema of their own":           `{"op":"Add","path":"urn:example:params:scim:schemas:extension:own:2.0:User:tag","value":"x"},` + leaves,
		"that alone comes last":           leaves + `,{"op":"remove","path":"urn:example:own:2.0:User:tag"}`,
		"one written out with the rest":   `{"op":"replace","value":{"urn:example:own:2.0:User":{"tag":"x"},"urn:example:own:2.0:User:tag":"x","active":false}}`,
		"nothing for a value":             `{"op":"replace","path":"title","value":null},` + leaves,
		"nothing for one that we keep":    `{"op":"replace","path":"displayName","value":null},` + leaves,
		"nothing among the rest":          `{"op":"replace","value":{"title":null,"active":false}}`,
		"no manager":                      `{"op":"Replace","path":"` + enterpriseUser + `:manager","value":null},` + leaves,
		"no manager among the rest":       `{"op":"replace","value":{"` + enterpriseUser + `:manager":null,"active":false}}`,
		"no manager within the schema":    `{"op":"replace","value":{"` + enterpriseUser + `":{"manager":null},"active":false}}`,
		"nothing at all, and the leaving": `{"op":"replace","value":{"title":null}},` + leaves,
		"no department within the schema": `{"op":"replace","value":{"` + enterpriseUser + `":{"department":null},"active":"False"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			boss, id := d.user("ben"), d.user("ana")
			d.want(200, "PATCH", users+"/"+id, patchOf(`{"op":"add","path":"`+enterpriseUser+`:manager","value":"`+boss+`"}`))
			v := d.want(200, "PATCH", users+"/"+id, patchOf(operations))
			if !d.person("ana").Disabled || v["active"] != false {
				t.Error("she is let in yet")
			}
			if _, has := v[enterpriseUser]; has == strings.HasPrefix(name, "no manager") {
				t.Errorf("her manager: %v", v[enterpriseUser])
			}
		})
	}
	d := newDesk(t)
	id := d.user("ana")
	d.want(400, "PATCH", users+"/"+id, patchOf(`{"op":"replace","path":"active","value":null}`))
	d.want(400, "PATCH", users+"/"+id, patchOf(`{"op":"replace","value":{"active":null}}`))
}

// What nobody here keeps is taken and not kept, also where a PATCH says nothing
// else: a directory that is told no tries again, and in time stops.
func TestWhatIsNotKeptAlone(t *testing.T) {
	d := newDesk(t)
	boss, id := d.user("ben"), d.user("ana")
	d.want(200, "PATCH", users+"/"+id, patchOf(`{"op":"add","path":"`+enterpriseUser+`:manager","value":"`+boss+`"}`))
	g := d.want(201, "POST", group, `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"],"displayName":"SRE team","members":[{"value":"`+id+`"}]}`)
	before := d.want(200, "GET", users+"/"+id, "")
	for _, operations := range []string{
		`{"op":"Add","path":"urn:example:own:2.0:User:tag","value":"x"}`,
		`{"op":"remove","path":"urn:example:own:2.0:User:tag"},{"op":"replace","path":"urn:example:own:2.0:User:size","value":3}`,
		`{"op":"replace","value":{"urn:example:own:2.0:User":{"tag":"x"}}}`,
	} {
		v := d.want(200, "PATCH", users+"/"+id, patchOf(operations))
		if v["active"] != true || v["displayName"] != before["displayName"] || v[enterpriseUser] == nil {
			t.Errorf("%s: %v", operations, v)
		}
		w := d.want(200, "PATCH", group+"/"+g["id"].(string), patchOf(operations))
		if members, _ := w["members"].([]any); w["displayName"] != "SRE team" || len(members) != 1 {
			t.Errorf("%s: %v", operations, w)
		}
	}
	d.want(400, "PATCH", users+"/"+id, patchOf(``))
	d.want(400, "PATCH", users+"/"+id, patchOf(`{"op":"replace","path":"noSuchAttribute","value":"x"}`))
}
