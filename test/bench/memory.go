package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// resident sums up what of the agent is in memory: all, its own, its program
// file, and the ring that it shares with the kernel.
const resident = `cd /proc/$(systemctl show -P MainPID curfew-agent) && awk '
/^[0-9a-f]+-[0-9a-f]+ / { name = $6 }
/^Rss:/ { all += $2; if (name ~ /bin\/curfew-agent$/) file += $2; if (name ~ /bpf-map/) ring += $2 }
/^Anonymous:/ { own += $2 }
END { print all+0, own+0, file+0, ring+0 }' smaps; find /run/curfew/sessions -type f 2>/dev/null | wc -l`

// memory tells it.
func (b *bench) memory(ctx context.Context) error {
	out, err := b.host.Sh(ctx, resident)
	if err != nil {
		return err
	}
	var all, own, file, ring, sessions int
	if _, err := fmt.Sscan(out, &all, &own, &file, &ring, &sessions); err != nil {
		return fmt.Errorf("read %q: %w", out, err)
	}
	mib := func(kb int) float64 { return float64(kb) / 1024 }
	fmt.Printf("%-20s RSS %.1fMiB: own %.1f, program file %.1f, mapped ring %.1f; sessions %d\n",
		"agent's memory", mib(all), mib(own), mib(file), mib(ring), sessions)
	return nil
}

// idle gives sam her grant, after a look at an agent that has none to hold.
func (b *bench) idle(ctx context.Context) error {
	if err := b.memory(ctx); err != nil {
		return err
	}
	if _, err := b.sam.Prove(ctx, "request", "free", "--on", "db1", "--for", "1h", "--no-wait"); err != nil {
		return err
	}
	return b.account(ctx, b.sam)
}

// sessions opens twenty logins, looks at the agent, and ends them.
func (b *bench) sessions(ctx context.Context) error {
	logins, cancel := context.WithCancel(ctx)
	defer cancel()
	var all []*exec.Cmd
	for i := range 20 {
		cmd, err := b.sam.Start(logins, filepath.Join(b.fleet.Dir(), "login"), "ssh", "db1", "--", "sleep 600")
		if err != nil {
			return err
		}
		all = append(all, cmd)
		if err := b.logins(ctx, i+1); err != nil {
			return err
		}
	}
	if err := b.memory(ctx); err != nil {
		return err
	}
	cancel()
	for _, cmd := range all {
		_ = cmd.Wait() // told to end
	}
	if _, err := b.host.Sh(ctx, "pkill -x -u sam sleep"); err != nil {
		return err
	}
	return b.logins(ctx, 0)
}

// logins waits until sam has that many.
func (b *bench) logins(ctx context.Context, n int) error {
	return b.within(ctx, "sam's logins", 20*time.Second, func() error {
		out, err := b.host.Sh(ctx, "pgrep -cx -u sam sleep; true")
		if err != nil {
			return err
		}
		if now, err := strconv.Atoi(strings.TrimSpace(out)); err != nil || now != n {
			return errors.Join(err, fmt.Errorf("%d of %d", now, n))
		}
		return nil
	})
}
