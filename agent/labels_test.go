package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"curfew.internal/agent/host"
	"curfew.internal/agent/keep"
	"curfew.internal/clock"
)

// TestTheSweepOfABootLoadsNothing: logins wait for it. As soon as there was a
// session, or something of ours is in the kernel, it does not go without.
func TestTheSweepOfABootLoadsNothing(t *testing.T) {
	for _, tt := range []struct {
		name                      string
		pin, session, agent, held bool
		without                   bool
	}{
		{name: "a boot", without: true},
		{name: "a boot, beside an agent that hangs", held: true},
		{name: "a boot's agent", agent: true},
		{name: "programs in the kernel", pin: true},
		{name: "a session whose labels were taken away", session: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			p := &parts{Folders: Folders{BPF: dir}, host: &host.Host{Root: dir}, clock: clock.System{}, log: slog.New(slog.DiscardHandler)}
			p.kept.sessions = keep.Folder{Dir: filepath.Join(dir, "sessions")}
			for name, is := range map[string]bool{"curfew/labels": tt.pin, "sessions/1.json": tt.session} {
				if !is {
					continue
				}
				file := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			labels, err := p.labels(!tt.agent, tt.held)
			if _, none := labels.(noLabels); none != tt.without || (err == nil) != tt.without { // this folder is on no bpffs
				t.Errorf("labels are %T, %v", labels, err)
			}
		})
	}
}
