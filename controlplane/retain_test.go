package controlplane

import (
	"strings"
	"testing"
	"time"
)

func TestRetention(t *testing.T) {
	r := Retention{DefaultDays: 365, RoleDays: map[string]int{"db-admin": 90}}
	for role, want := range map[string]time.Duration{"db-admin": 90 * 24 * time.Hour, "other": 365 * 24 * time.Hour} {
		if got := r.of(role); got != want {
			t.Errorf("%s: %v, want %v", role, got, want)
		}
	}
	if got := (Retention{}).of("db-admin"); got != 0 {
		t.Errorf("nothing is said, and it is deleted after %v", got)
	}
	if got := r.ofTerminals("db-admin"); got != 90*24*time.Hour {
		t.Errorf("recordings are kept for %v where nothing is said of them", got)
	}
	r.TerminalDays, r.RoleTerminalDays = 30, map[string]int{"other": 14}
	for role, want := range map[string]time.Duration{"db-admin": 30 * 24 * time.Hour, "other": 14 * 24 * time.Hour} {
		if got := r.ofTerminals(role); got != want {
			t.Errorf("recordings of %s: %v, want %v", role, got, want)
		}
	}
	for _, c := range []struct {
		name string
		r    Retention
		want string // empty: it is right
	}{
		{"nothing", Retention{}, ""},
		{"both", r, ""},
		{"a role with none", Retention{RoleDays: map[string]int{"db-admin": 0}}, "retention: role_days: db-admin: write 1"},
		{"a role whose recordings are kept for no day", Retention{RoleTerminalDays: map[string]int{"db-admin": 0}}, "retention: role_terminal_days: db-admin: write 1"},
		{"recordings for less than none", Retention{TerminalDays: -1}, "terminal_days"},
		{"less than none", Retention{DefaultDays: -1}, "default_days"},
		{"longer than a clock counts", Retention{DefaultDays: 1 << 40}, "default_days"},
	} {
		err := c.r.check()
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
