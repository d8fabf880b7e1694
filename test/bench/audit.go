package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// audited runs the storm under auditd with an execve rule, and without the
// rule, in turns. The audit subsystem is the kernel's, so the daemon runs on
// the machine itself, writing to the lab's folder, and is put away again.
func (b *bench) audited(ctx context.Context) (err error) {
	dir := filepath.Join(b.fleet.Dir(), "audit")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	conf := "local_events = yes\nwrite_logs = yes\nlog_file = " + dir + "/audit.log\nlog_format = ENRICHED\nflush = INCREMENTAL_ASYNC\nfreq = 50\n"
	if err := os.WriteFile(filepath.Join(dir, "auditd.conf"), []byte(conf), 0o640); err != nil {
		return err
	}
	daemon := exec.CommandContext(ctx, "auditd", "-n", "-c", dir)
	if err := daemon.Start(); err != nil {
		return fmt.Errorf("auditd: %w", err)
	}
	defer func() {
		err = errors.Join(err, audit(ctx, "-D"), audit(ctx, "-e", "0"), daemon.Process.Signal(os.Interrupt))
		_ = daemon.Process.Kill()
		_ = daemon.Wait() // told to stop
	}()
	if err := audit(ctx, "-e", "1"); err != nil {
		return err
	}
	const script = `a=${EPOCHREALTIME/./}; for i in {1..1000}; do /bin/true; done; echo us $((${EPOCHREALTIME/./} - a))`
	var with, without []time.Duration
	for range 12 {
		if err := audit(ctx, "-a", "always,exit", "-F", "arch=b64", "-S", "execve"); err != nil {
			return err
		}
		out, err := b.host.Sh(ctx, "runuser -u pa -- bash -c '"+script+"'")
		if err != nil {
			return err
		}
		with = append(with, micros(out)...)
		if err := audit(ctx, "-D"); err != nil {
			return err
		}
		if out, err = b.host.Sh(ctx, "runuser -u pa -- bash -c '"+script+"'"); err != nil {
			return err
		}
		without = append(without, micros(out)...)
	}
	w, o := show("the same, without a label, under auditd with an execve rule", with), show("the same, without the rule", without)
	fmt.Printf("%-64s %.3f\n", "audited over not audited, medians", float64(w)/float64(o))
	return nil
}

func audit(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, "auditctl", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("auditctl %v: %w: %s", args, err, out)
	}
	return nil
}
