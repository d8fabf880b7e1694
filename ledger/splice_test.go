package ledger

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"curfew.internal/canon"
)

// partsOf are the fields of a bundle, as they stand there.
func partsOf(t *testing.T, file []byte) [][]byte {
	t.Helper()
	var parts [][]byte
	for len(file) > 0 {
		_, n, err := canon.Length(file)
		if err != nil {
			t.Fatal(err)
		}
		parts, file = append(parts, file[:n]), file[n:]
	}
	return parts
}

// claims are a bundle without the earlier checkpoint that its log goes on from: it
// is shown by itself, and true in each bundle of that log.
func claims(t *testing.T, file []byte) []byte {
	t.Helper()
	return slices.Concat(slices.DeleteFunc(partsOf(t, file), func(part []byte) (earlier bool) {
		_ = canon.Read(part, func(f canon.Field) error { // a part that was made here
			earlier = f.Num == 3 || f.Num == 4
			return nil
		})
		return earlier
	})...)
}

// Whatever is put together from parts of bundles, of one log at two times and of
// another that the same key signed, is found, unless it says what one of them
// says.
func TestNothingThatIsPutTogetherFromBundlesVerifies(t *testing.T) {
	every, trust := everyKind(t)
	trust.Older = nil
	young, grown, fork := story(), story(), newLog()
	for n := range uint64(5) {
		grown.tell(10+n, event(6+n))
	}
	for n := range uint64(17) {
		fork.tell(n+1, Entry{Kind: Agent, At: noon, Host: "db1", Text: "other"})
	}
	var files [][]byte
	var pool [][]byte
	for _, b := range []Bundle{
		every, young.export(7, upTo(12)...), young.export(0, 1, 4, 11), young.forgetful(6, 7), grown.export(12, upTo(17)...), grown.export(7, 13, 14), fork.export(3, upTo(17)...),
	} {
		files = append(files, b.Bytes())
		pool = append(pool, partsOf(t, b.Bytes())...)
	}
	rapid.Check(t, func(rt *rapid.T) {
		for range 3 {
			parts := partsOf(t, files[rapid.IntRange(0, len(files)-1).Draw(rt, "from")])
			for range rapid.IntRange(1, 3).Draw(rt, "changes") {
				at := rapid.IntRange(0, len(parts)-1).Draw(rt, "at")
				other := pool[rapid.IntRange(0, len(pool)-1).Draw(rt, "other")]
				switch rapid.IntRange(0, 4).Draw(rt, "how") {
				case 0:
					parts[at] = other
				case 1:
					parts = slices.Insert(parts, at, other)
				case 2:
					parts = slices.Delete(parts, at, at+1)
				case 3:
					to := rapid.IntRange(0, len(parts)-1).Draw(rt, "to")
					parts[at], parts[to] = parts[to], parts[at]
				case 4: // the head of one, and the rest of another
					rest := partsOf(t, files[rapid.IntRange(0, len(files)-1).Draw(rt, "rest")])
					parts = append(parts[:at:at], rest[min(at, len(rest)):]...)
				}
				if len(parts) == 0 {
					break
				}
			}
			file := slices.Concat(parts...)
			if r := Verify(file, Trust{Key: trust.Key}); len(r.Findings) == 0 && !slices.ContainsFunc(files, func(f []byte) bool { return bytes.Equal(claims(t, f), claims(t, file)) }) {
				rt.Fatalf("it verifies: %+v", r)
			}
		}
	})
}
