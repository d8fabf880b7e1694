package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The texts are what systemd 252 made of a timer of ours, and of its service.
const (
	timerText = `# This is a transient unit file, created programmatically via the systemd API. Do not edit.
[Unit]
Description=Curfew: the end of a grant, should its agent be dead

[Timer]
OnCalendar=2026-11-24 02:19:56.500 UTC
OnActiveSec=14.519s
AccuracySec=1ms
RemainAfterElapse=no

[Unit]
IgnoreOnIsolate=yes
`
	serviceText = `# This is a transient unit file, created programmatically via the systemd API. Do not edit.
[Unit]
Description=Curfew: the end of a grant

[Service]
Type=oneshot
ExecStart=
ExecStart=-"/usr/bin/curfew-agent" "sweep" "--due"
ExecStart=-"/usr/bin/systemctl" "start" "curfew-sweep.service"
ExecStart=-"/usr/bin/systemctl" "start" "curfew-sweep.service"

[Unit]
CollectMode=inactive-or-failed
`
)

// Whoever writes into the two files may have another unit start, another command
// run, or none.
func TestEndOfATimer(t *testing.T) {
	const end = "2026-11-24 02:19:56"
	for _, c := range []struct{ timer, service, want string }{
		{timerText, serviceText, end},
		{timerText, strings.ReplaceAll(serviceText, `-"/usr/bin/systemctl"`, `-@/usr/bin/systemctl "/usr/bin/systemctl"`), end},
		{"", serviceText, spoiled},
		{"[Timer]\nOnCalendar=daily\n", serviceText, spoiled},
		{"OnCalendar=", serviceText, spoiled},
		{"\x00", serviceText, spoiled},
		{timerText + "[Timer]\nUnit=hers.service\n", serviceText, spoiled},
		{timerText + "[Timer]\nOnCalendar=\n", serviceText, spoiled},
		{strings.Replace(timerText, "[Timer]", "[X-Timer]", 1), serviceText, spoiled},
		{strings.Replace(timerText, "1ms", "1y", 1), serviceText, spoiled},
		{timerText, "", spoiled},
		{timerText, strings.Replace(serviceText, "sweep", "true", 1), spoiled},
		{timerText, strings.Replace(serviceText, "systemctl", "true", 1), spoiled},
		{timerText, serviceText + "[Service]\nExecStart=\n", spoiled},
		{timerText, serviceText + "[Service]\nExecStart=/root/hers\n", spoiled},
		{timerText, serviceText + "[Service]\nEnvironment=LD_PRELOAD=/root/hers\n", spoiled},
		{timerText, serviceText + "[Unit]\nConditionPathExists=/nowhere\n", spoiled},
		{timerText, strings.Replace(serviceText, "a grant\n", "a grant\\\n", 1), spoiled},
		{timerText, strings.Replace(serviceText, "[Service]", "[X-Service]", 1), spoiled},
	} {
		name := filepath.Join(t.TempDir(), timerPrefix+"g-x")
		must(t, os.WriteFile(name+timerSuffix, []byte(c.timer), 0o600))
		must(t, os.WriteFile(name+".service", []byte(c.service), 0o600))
		if got, err := endIn(name); got != c.want || err != nil {
			t.Errorf("%s, %v:\n%s\n%s", got, err, c.timer, c.service)
		}
	}
}

func TestATimerWithoutItsServiceIsSpoiled(t *testing.T) {
	name := filepath.Join(t.TempDir(), timerPrefix+"g-x")
	if _, err := endIn(name); !errors.Is(err, fs.ErrNotExist) {
		t.Error("neither is there:", err)
	}
	must(t, os.WriteFile(name+timerSuffix, []byte(timerText), 0o600))
	if got, err := endIn(name); got != spoiled || err != nil {
		t.Error(got, err)
	}
}

// Where a timer's file would be may lie a pipe, which nobody writes to.
func TestAPipeInATimersPlaceKeepsNobody(t *testing.T) {
	name := filepath.Join(t.TempDir(), timerPrefix+"g-x")
	must(t, unix.Mkfifo(name+timerSuffix, 0o600))
	must(t, unix.Mkfifo(name+".service", 0o600))
	done := make(chan error, 1)
	go func() {
		end, err := endIn(name)
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
