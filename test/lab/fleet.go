package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pquerna/otp/totp"
)

// A Fleet is a control plane, its people and its hosts, all real, in a lab.
type Fleet struct {
	*Lab
	Repo   string // the top of the repository; bin/ holds what was built
	URL    string
	People map[string]*Person
	server *exec.Cmd
	first  string // its configuration
}

// Place is where the control plane and people's programs are in the network.
const Place = "cp"

// NewFleet starts a control plane with a policy, and its first admin, cleo.
func NewFleet(ctx context.Context, progress io.Writer, repo, policy string) (*Fleet, error) {
	l, err := New(ctx, progress)
	if err != nil {
		return nil, err
	}
	f := &Fleet{Lab: l, Repo: repo, People: map[string]*Person{}}
	if err := f.begin(ctx, policy); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *Fleet) begin(ctx context.Context, policy string) error {
	address, err := f.Join(ctx, Place)
	if err != nil {
		return err
	}
	f.URL = "https://" + address + ":7443"
	if err := f.Policy(policy); err != nil {
		return err
	}
	out, err := f.In(ctx, Place, f.bin("curfew-server"), "init", "--config", f.config(), "--fleet", "example", "--url", f.URL,
		"--admin", "cleo", "--full-name", "Cleo Park", "--data-dir", f.path("data"), "--policy-dir", f.path("policy"),
		"--root-key", f.RootKey(), "--web", Pages).Output()
	if err != nil {
		return fmt.Errorf("curfew-server init: %w", said(err))
	}
	if err := f.StartServer(ctx); err != nil {
		return err
	}
	_, err = f.Enrol(ctx, "cleo", string(out))
	return err
}

func (f *Fleet) path(elem ...string) string {
	return filepath.Join(append([]string{f.dir, "plane"}, elem...)...)
}

// RootKey is where the fleet's root key is, as if that were offline.
func (f *Fleet) RootKey() string { return f.path("root.key") }

// Database is the control plane's file.
func (f *Fleet) Database() string { return f.path("data", "curfew.db") }

func (f *Fleet) config() string { return f.path("server.yaml") }

func (f *Fleet) bin(name string) string { return filepath.Join(f.Repo, "bin", name) }

// Policy writes the policy folder.
func (f *Fleet) Policy(text string) error {
	if err := os.MkdirAll(f.path("policy"), 0o755); err != nil {
		return err
	}
	fresh := f.path("policy.new")
	if err := os.WriteFile(fresh, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(fresh, f.path("policy", "policy.yaml"))
}

// StartServer starts the control plane and waits until it is ready.
func (f *Fleet) StartServer(ctx context.Context) error {
	log, err := os.OpenFile(f.path("server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the server has its own
	// Not bound to ctx: it serves until it is stopped.
	f.server = exec.Command("ip", "netns", "exec", f.ns(Place), f.bin("curfew-server"), "serve", "--config", f.config())
	f.server.Stdout, f.server.Stderr = log, log
	if err := f.server.Start(); err != nil {
		return fmt.Errorf("start curfew-server: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err = Until(ctx, "the control plane", func() error {
		out, err := f.In(ctx, Place, "/bin/bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/7445 && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && head -1 <&3 | grep 200").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: %s", err, f.ServerLog())
	}
	return nil
}

// ServerLog is the end of the control plane's log.
func (f *Fleet) ServerLog() string {
	b, err := os.ReadFile(f.path("server.log"))
	if err != nil {
		return err.Error()
	}
	return tail(b)
}

// Configure starts the control plane anew, with more in its configuration than
// it began with.
func (f *Fleet) Configure(ctx context.Context, more string) error {
	if f.first == "" {
		b, err := os.ReadFile(f.config())
		if err != nil {
			return err
		}
		f.first = string(b)
	}
	if err := errors.Join(f.KillServer(), os.WriteFile(f.config(), []byte(f.first+more), 0o600)); err != nil {
		return err
	}
	return f.StartServer(ctx)
}

// ServerPID is the control plane's process.
func (f *Fleet) ServerPID() int { return f.server.Process.Pid }

// KillServer ends the control plane without a word.
func (f *Fleet) KillServer() error {
	if f.server == nil {
		return nil
	}
	err := f.server.Process.Signal(syscall.SIGKILL)
	_ = f.server.Wait() // killed: that is what we wanted
	f.server = nil
	return err
}

// Close ends the control plane, and takes the lab away.
func (f *Fleet) Close() error { return errors.Join(f.KillServer(), f.Lab.Close()) }

// Add starts a host with everything of ours on it, and lets it join.
func (f *Fleet) Add(ctx context.Context, name, label string, more ...File) (*Host, error) {
	pam := "/usr/lib/x86_64-linux-gnu/security/pam_curfew.so"
	files := append([]File{
		{Path: "/usr/bin/curfew-agent", From: f.bin("curfew-agent"), Mode: 0o755},
		{Path: "/usr/libexec/curfew-agent/curfew-record", From: f.bin("curfew-record"), Mode: 0o755},
		// Nobody but root reads it, so that nobody else can look into its processes.
		{Path: "/usr/libexec/curfew-agent/curfew-shell", From: f.bin("curfew-shell"), Mode: 0o711},
		{Path: pam, From: f.bin("pam_curfew.so"), Mode: 0o644},
		{Path: "/usr/libexec/curfew-agent/pam-try", From: f.bin("pam-try"), Mode: 0o755},
	}, more...)
	for _, unit := range []string{"curfew-agent.service", "curfew-record.service", "curfew-sweep.service", "curfew-sweep.timer", "run-curfew-home.mount"} {
		files = append(files, File{Path: "/usr/lib/systemd/system/" + unit, From: filepath.Join(f.Repo, "systemd", unit), Mode: 0o644})
	}
	h, err := f.Host(ctx, name, files...)
	if err != nil {
		return nil, err
	}
	token, err := f.People["cleo"].Administer(ctx, "hosts", "token", "--label", label, "--host", name)
	if err != nil {
		return nil, err
	}
	for _, step := range []struct{ input, script string }{
		{"", "curfew-agent install"},
		{token, "curfew-agent join --name " + name + " --address " + h.Address},
		{"", "systemctl daemon-reload && systemctl enable --now curfew-agent.service curfew-sweep.service curfew-sweep.timer"},
	} {
		if _, err := h.Feed(ctx, step.input, step.script); err != nil {
			log, _ := h.Sh(ctx, "curfew-agent sweep; echo code $?; sleep 1; systemctl status curfew-sweep; journalctl --no-pager -n 30 -u curfew-agent -u curfew-sweep")
			return nil, fmt.Errorf("%w\n%s", err, log)
		}
	}
	return h, nil
}

// A Person is somebody with a computer and a second factor.
type Person struct {
	Name   string
	fleet  *Fleet
	home   string
	secret string
	step   int64 // the last time step of which a code was used
}

// Invite adds a person and enrols her.
func (f *Fleet) Invite(ctx context.Context, name, full string) (*Person, error) {
	invite, err := f.People["cleo"].Administer(ctx, "people", "add", name, "--full-name", full)
	if err != nil {
		return nil, err
	}
	return f.Enrol(ctx, name, invite)
}

// Enrol uses an invite on a computer of the person's own. It reads the new
// factor from what the program shows, as a phone would.
func (f *Fleet) Enrol(ctx context.Context, name, invite string) (*Person, error) {
	p := &Person{Name: name, fleet: f, home: f.path("people", name)}
	cmd := p.command(ctx, "login", strings.TrimSpace(invite))
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	shown, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var line string
	if _, err := fmt.Fscanln(shown, &line); err != nil {
		return nil, fmt.Errorf("enrol %s: %w: %s", name, errors.Join(err, cmd.Wait()), stderr.String())
	}
	u, err := url.Parse(line)
	if err != nil {
		return nil, err
	}
	p.secret = u.Query().Get("secret")
	code, err := p.Code(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintln(in, code); err != nil {
		return nil, err
	}
	rest, _ := io.ReadAll(shown)
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("enrol %s: %w: %s%s", name, err, rest, stderr.String())
	}
	f.People[name] = p
	return p, nil
}

// Code is the person's next code. A code is good once: it waits until there
// is one that was not used.
func (p *Person) Code(ctx context.Context) (string, error) {
	const period = 30
	for {
		now := time.Now().Unix() / period
		if next := max(p.step+1, now); next <= now+1 {
			p.step = next
			return totp.GenerateCode(p.secret, time.Unix(next*period, 0))
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// command is the person's command line, on her own computer.
func (p *Person) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := p.fleet.In(ctx, Place, p.fleet.bin("curfew"), args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CURFEW_HOME=" + p.home, "HOME=" + p.home, "LC_ALL=C.UTF-8"}
	cmd.WaitDelay = time.Second
	return cmd
}

// Run runs curfew as the person, with a line on its standard input.
func (p *Person) Run(ctx context.Context, input string, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd := p.command(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input+"\n"), &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), errs.String(), fmt.Errorf("%s: curfew %s: %w: %s", p.Name, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), errs.String(), nil
}

// Prove runs curfew as the person, with a fresh code of her second factor.
func (p *Person) Prove(ctx context.Context, args ...string) (stdout string, err error) {
	code, err := p.Code(ctx)
	if err != nil {
		return "", err
	}
	stdout, _, err = p.Run(ctx, code, args...)
	return stdout, err
}

// Administer runs curfew as the person, with a code of her second factor if
// the control plane asks for one.
func (p *Person) Administer(ctx context.Context, args ...string) (stdout string, err error) {
	stdout, stderr, err := p.Run(ctx, "", args...)
	if strings.Contains(stderr, "the code of your second factor is needed") {
		return p.Prove(ctx, args...)
	}
	return stdout, err
}

// Start runs curfew as the person in the background, its output into a file.
func (p *Person) Start(ctx context.Context, output string, args ...string) (*exec.Cmd, error) {
	f, err := os.Create(output)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // the program has its own
	cmd := p.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = f, f
	return cmd, cmd.Start()
}

// Shell runs a script of bash's on the person's computer, in an empty folder
// and with what curfew keeps of hers where it is by default.
func (p *Person) Shell(ctx context.Context, script string) (string, error) {
	home, err := os.MkdirTemp(p.home, "shell")
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(filepath.Join(home, ".config"), 0o700); err != nil {
		return "", err
	}
	if err := os.Symlink(p.home, filepath.Join(home, ".config", "curfew")); err != nil {
		return "", err
	}
	cmd := p.fleet.In(ctx, Place, "bash", "-ec", "cd; "+script)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + home, "LC_ALL=C.UTF-8"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", p.Name, err, out)
	}
	return string(out), err
}

// Carry runs scp as the person, over `curfew ssh`.
func (p *Person) Carry(ctx context.Context, args ...string) error {
	script := filepath.Join(p.home, "carry")
	text := fmt.Sprintf("#!/bin/sh\nexec %s ssh \"$@\"\n", p.fleet.bin("curfew"))
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		return err
	}
	cmd := p.command(ctx)
	scp := p.fleet.In(ctx, Place, "scp", append([]string{"-q", "-S", script}, args...)...)
	scp.Env, scp.WaitDelay = cmd.Env, cmd.WaitDelay
	out, err := scp.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: scp %s: %w: %s", p.Name, strings.Join(args, " "), err, out)
	}
	return nil
}

func said(err error) error {
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return fmt.Errorf("%w: %s", err, tail(ended.Stderr))
	}
	return err
}
