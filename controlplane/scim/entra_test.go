package scim

import (
	"bytes"
	"encoding/json"
	"testing"
)

func FuzzTidied(f *testing.F) {
	const ext = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
	f.Add([]byte(`{"Operations":[{"op":"Add","path":"` + ext + `:manager","value":"u-x"},{"op":"Replace","path":"active","value":"False"}]}`))
	f.Add([]byte(`{"Operations":[{"op":"add","value":{"` + ext + `":{"manager":[{"value":"u-x"}]}}}],"n":1e400}`))
	f.Add([]byte(`{"` + ext + `":{"manager":"u-x"}} {`))
	f.Add([]byte(`{"Operations":[{"op":"Replace","path":"active","value":[{"$ref":null,"value":"False"}]},{"op":"add","value":{"active":[[{"value":{"value":1}}]]}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		once := tidied(b)
		if !json.Valid(once) && json.Valid(b) {
			t.Errorf("%q became %q", b, once)
		}
		if again := tidied(once); json.Valid(once) && !bytes.Equal(once, again) {
			t.Errorf("%q became %q, and then %q", b, once, again)
		}
	})
}
