package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// auditConf is Debian's, but for where the log is and what a full disk does.
const auditConf = `local_events = yes
write_logs = yes
log_file = %s/audit.log
log_format = ENRICHED
flush = INCREMENTAL_ASYNC
freq = 50
max_log_file = 64
num_logs = 2
max_log_file_action = ROTATE
space_left = 75
space_left_action = IGNORE
admin_space_left = 50
admin_space_left_action = IGNORE
disk_full_action = IGNORE
disk_error_action = IGNORE
q_depth = 2000
`

// auditScript has auditd log every exec until its input ends, however we end,
// and then leaves the machine's audit as it was: off, without a rule.
const auditScript = `
dir=$1
auditd -n -c "$dir" & daemon=$!
undo() { auditctl -D; kill $daemon; wait $daemon; auditctl -e 0; auditctl -b 64; }
trap 'undo >/dev/null 2>&1' EXIT
for i in {1..100}; do
	auditctl -s | grep -qx "pid $daemon" && break
	sleep 0.05
done
auditctl --reset-lost >/dev/null && auditctl -b 8192 >/dev/null && auditctl -e 1 >/dev/null && auditctl -a always,exit -F arch=b64 -S execve -S execveat -k bench >/dev/null || exit
echo ready
read -r _
sleep 0.3
echo "$(auditctl -s | grep '^lost')"
`

// auditable says why the machine's audit cannot be borrowed: it is one for
// all, and may have a use.
func auditable(ctx context.Context) error {
	for _, name := range []string{"auditd", "auditctl"} {
		if _, err := exec.LookPath(name); err != nil {
			return err
		}
	}
	status, err := exec.CommandContext(ctx, "auditctl", "-s").CombinedOutput()
	if err != nil {
		return fmt.Errorf("auditctl -s: %w: %s", err, status)
	}
	rules, err := exec.CommandContext(ctx, "auditctl", "-l").CombinedOutput()
	if err != nil {
		return fmt.Errorf("auditctl -l: %w: %s", err, rules)
	}
	for _, want := range []string{"enabled 0\n", "pid 0\n", "backlog_limit 64\n"} {
		if !strings.Contains(string(status), want) {
			return errors.New("the machine's audit is in use")
		}
	}
	if !strings.Contains(string(rules), "No rules") {
		return errors.New("the machine's audit has rules")
	}
	return nil
}

// audit switches auditd on. What it returns switches it off, and fails if the
// kernel lost records or auditd wrote none.
func (b *bench) audit(ctx context.Context) (stop func() error, err error) {
	dir := filepath.Join(b.fleet.Dir(), "audit")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "auditd.conf"), fmt.Appendf(nil, auditConf, dir), 0o600); err != nil {
		return nil, err
	}
	// Not bound to ctx, and out of the terminal's reach: it ends with its input,
	// and undoes what it did first.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "/bin/bash", "-c", auditScript, "audit", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n')
	if err != nil || line != "ready\n" {
		_ = in.Close()
		return nil, fmt.Errorf("auditd does not start: %q: %w", line, errors.Join(err, cmd.Wait()))
	}
	return func() error {
		_ = in.Close()
		rest, _ := io.ReadAll(r)
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("auditd: %w: %s", err, rest)
		}
		return logged(filepath.Join(dir, "audit.log"), string(rest))
	}, nil
}

// logged makes sure that auditd wrote each program of the storm.
func logged(name, rest string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if n := strings.Count(string(b), `a0="/bin/true"`); n != programs+paced || !strings.Contains(rest, "lost 0") {
		return fmt.Errorf("auditd has %d of %d programs, %s", n, programs+paced, rest)
	}
	return os.Remove(name)
}
