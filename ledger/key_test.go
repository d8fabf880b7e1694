package ledger

import "testing"

func TestKeys(t *testing.T) {
	l := newLog()
	text := l.key.String()
	k, err := ParseKey(text)
	if err != nil || !k.Public.Equal(l.key.Public) || k.Fleet != "example" || k.KeyHash() != l.key.KeyHash() {
		t.Fatalf("%v, %v", k, err)
	}
	for i := range text {
		bad := []byte(text)
		bad[i] ^= 1
		if k, err := ParseKey(string(bad)); err == nil && k.Fleet == "example" && k.Public.Equal(l.key.Public) {
			t.Errorf("%s passes for %s", bad, text)
		}
	}
	for _, bad := range []string{"", "x", "+", "curfew/example", "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"} {
		if _, err := ParseKey(bad); err == nil {
			t.Errorf("%q is a key", bad)
		}
	}
}
