package main

import (
	"strings"
	"testing"
)

// What is wrong with the times is said before anybody is asked for a code.
func TestDelegatingTakesOneEnd(t *testing.T) {
	for _, c := range []struct {
		name, line, want string
		code             int
	}{
		{"no end", "delegate to ben", "say until when: --until TIME, or for how long: --for 7d", exitUsage},
		{"two ends", "delegate to ben --until 2d --for 2d", "say until when: --until TIME, or for how long: --for 7d", exitUsage},
		{"nobody", "delegate to --for 2d", `expected "<person>"`, exitUsage},
		{"no time", "delegate to ben --until soon", "--until", exitUsage},
		{"one end, and nobody is signed in", "delegate to ben --for 2d", "curfew login", exitSignIn},
		{"a list for nobody", "delegate list", "curfew login", exitSignIn},
		{"no delegation to end", "delegate end", `expected "<id>"`, exitUsage},
	} {
		t.Run(c.name, func(t *testing.T) {
			if out, code := ran(t, strings.Fields(c.line)); code != c.code || !strings.Contains(out, c.want) {
				t.Errorf("%d, %s", code, out)
			}
		})
	}
}
