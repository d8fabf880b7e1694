package lab

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"curfew.internal/test/need"
)

func TestHosts(t *testing.T) {
	need.Root(t)
	need.Program(t, "systemd-nspawn", "mmdebstrap", "ip", "ssh", "ssh-keygen")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	l, err := New(ctx, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, l)
	}()
	if _, err := l.Join(ctx, "cp"); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(l.Dir(), "key")
	if out, err := l.In(ctx, "cp", "ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	h, err := l.Host(ctx, "one", File{Path: "/root/.ssh/authorized_keys", From: key + ".pub", Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	login := func() (string, error) {
		out, err := l.In(ctx, "cp", "ssh", "-i", key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=2",
			"root@"+h.Address, "cat /proc/self/loginuid; echo; loginctl --no-legend list-sessions; findmnt -n -o FSTYPE /sys/fs/bpf").CombinedOutput()
		return string(out), err
	}
	out, err := login()
	if err != nil || !strings.Contains(out, "root") || !strings.Contains(out, "bpf") {
		t.Errorf("login: %v %s", err, out)
	}
	if err := l.Cable(ctx, "one", false); err != nil {
		t.Fatal(err)
	}
	if out, err := login(); err == nil {
		t.Errorf("a login through a cable that is out: %s", out)
	}
	if err := l.Cable(ctx, "one", true); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Sh(ctx, "echo kept > /root/kept; sync; echo lost > /run/lost"); err != nil {
		t.Fatal(err)
	}
	if err := h.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if out, err := h.Sh(ctx, "cat /root/kept; test ! -e /run/lost"); err != nil || out != "kept\n" {
		t.Errorf("after the power cut: %v %s", err, out)
	}
}

func nothingLeft(t *testing.T, l *Lab) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), l.dir) {
		t.Error("a mount is left")
	}
	left, _ := filepath.Glob("/run/netns/" + l.prefix + "*")
	if _, err := os.Stat(l.dir); err == nil || len(left) > 0 {
		t.Errorf("left: %v %v", l.dir, left)
	}
}
