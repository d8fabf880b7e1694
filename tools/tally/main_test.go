package main

import (
	"io"
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	const pass = `{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA/sub"}
{"Action":"pass","Package":"p"}
`
	for _, c := range []struct {
		name, in string
		strict   bool
		last     string
		bad      bool
	}{
		{"all passed", pass, true, "1 passed, 0 failed", false},
		{"a failed test", pass + `{"Action":"fail","Package":"q","Test":"TestB"}
{"Action":"fail","Package":"q"}`, false, "1 passed, 1 failed", true},
		{"a package that does not build", `{"Action":"fail","Package":"q"}
` + pass, false, "1 passed, 1 failed", true},
		{"a package that does not build after one that failed", `{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}
{"Action":"fail","Package":"q"}`, false, "0 passed, 2 failed", true},
		{"a package that died inside a test", pass + `{"Action":"output","Package":"q","Test":"TestB","Output":"panic\n"}
{"Action":"fail","Package":"q"}`, false, "1 passed, 1 failed", true},
		{"a skip in CI", pass + `{"Action":"skip","Package":"q","Test":"TestB"}`, true, "1 passed, 0 failed, 1 skipped", true},
		{"a skipped subtest in CI", pass + `{"Action":"skip","Package":"q","Test":"TestB/x"}`, true, "1 passed, 0 failed, 1 skipped", true},
		{"a skip at a desk", pass + `{"Action":"skip","Package":"q","Test":"TestB"}`, false, "1 passed, 0 failed, 1 skipped", false},
		{"a package without tests is no skip", pass + `{"Action":"skip","Package":"q"}`, true, "1 passed, 0 failed", false},
		{"nothing", "", false, "0 passed, 0 failed", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			ta := tally{out: io.Writer(&out), held: map[test][]string{}, failedIn: map[string]bool{}}
			err := ta.run(strings.NewReader(c.in), "", c.strict)
			if (err != nil) != c.bad {
				t.Errorf("error %v", err)
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if got := lines[len(lines)-1]; got != c.last {
				t.Errorf("closes with %q, want %q", got, c.last)
			}
		})
	}
}
