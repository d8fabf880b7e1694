package host

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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

// Where a timer's file would be may lie a pipe, which nobody writes to.
func TestAPipeInATimersPlaceKeepsNobody(t *testing.T) {
	file := filepath.Join(t.TempDir(), timerPrefix+"g-x"+timerSuffix)
	must(t, unix.Mkfifo(file, 0o600))
	done := make(chan error, 1)
	go func() {
		end, err := endIn(file)
		if end != spoiled {
			err = errors.Join(err, errors.New(end))
		}
		done <- err
	}()
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(time.Minute):
		t.Fatal("it waits for who writes to a pipe")
	}
}
