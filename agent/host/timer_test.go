package host

import "testing"

// The text is what systemd 252 made of a timer of ours.
func TestEndOfATimer(t *testing.T) {
	const text = `# This is a transient unit file, created programmatically via the systemd API. Do not edit.
[Unit]
Description=Curfew: the end of a grant, should its agent be dead

[Timer]
OnCalendar=2026-11-24 02:19:56.500 UTC
OnActiveSec=14.519s
AccuracySec=1ms
RemainAfterElapse=no
`
	if got := endOf(text); got != "2026-11-24 02:19:56" {
		t.Error(got)
	}
	for _, text := range []string{"", "[Timer]\nOnCalendar=daily\n", "OnCalendar=", "\x00"} {
		if got := endOf(text); got != spoiled {
			t.Errorf("%q: %s", text, got)
		}
	}
}
