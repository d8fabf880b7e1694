package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/durationpb"

	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
)

type sshCmd struct {
	Role   string   `placeholder:"ROLE" help:"Ask for this role on the host first, and wait, if no grant of it stands there."`
	For    length   `default:"1h" placeholder:"TIME" help:"For how long."`
	Why    string   `placeholder:"REASON" help:"The justification."`
	Ticket string   `placeholder:"ID" help:"A ticket."`
	Args   []string `arg:"" name:"host" help:"As for ssh: options, the host, and the command to run there."`
}

// Help teaches by example.
func (sshCmd) Help() string {
	return `What stands after "ssh" and our own flags, which come first, is read as
ssh(1) reads it:

  curfew ssh db1
  curfew ssh --role db-admin --why 'disk full' db1
  curfew ssh db1 sudo systemctl restart cron
  curfew ssh -L 5432:localhost:5432 -N db1
  rsync -e "curfew ssh" FILE db1:
  git -c core.sshCommand="curfew ssh" fetch db1:repo

scp and sftp take a script that runs: exec curfew ssh "$@"   (scp -S SCRIPT)`
}

// valued are the options of ssh(1) that a value follows.
const valued = "BbcDEeFIiJLlmOoPpQRSWw"

var errHost = errors.New("name a host: curfew ssh HOST")

// A call is what ssh is asked for.
type call struct {
	host             string
	options, command []string
}

// read takes the words apart as ssh(1) does: options stand before and after
// the host, and what follows them is the command.
func read(words []string) (call, error) {
	var c call
	open := true // options may still come
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case open && w == "--":
			open = false
		case open && len(w) > 1 && w[0] == '-':
			c.options = append(c.options, w)
			if at := strings.IndexAny(w[1:], valued); at >= 0 && at == len(w)-2 {
				if i++; i == len(words) {
					return c, fmt.Errorf("option %s of ssh wants a value", w)
				}
				c.options = append(c.options, words[i])
			}
		case c.host == "":
			c.host = w
			open = true
		default:
			c.command = words[i:]
			return c, nil
		}
	}
	if c.host == "" {
		return c, errHost
	}
	return c, nil
}

// sshValued are flags of ours that a value follows.
var sshValued = []string{"--home", "--output", "--role", "--for", "--why", "--ticket"}

// ours puts a mark between our own flags and the words that are for ssh,
// which has flags of the same names.
func ours(args []string) []string {
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-o" || a == "--output" || a == "--home":
			i++ // its value
		case a == "ssh":
			next := i + 1
			for next < len(args) && strings.HasPrefix(args[next], "--") && len(args[next]) > 2 {
				if slices.Contains(sshValued, args[next]) {
					next++
				}
				next++
			}
			if next >= len(args) || args[next] == "-h" {
				return args
			}
			return slices.Insert(slices.Clone(args), next, "--")
		case !strings.HasPrefix(a, "-"):
			return args
		}
	}
	return args
}

// Run gets a certificate that ends with the grant, for a key that lives as
// long as this call, and hands over to ssh. The host is known by the keys
// that it enrolled with: there is no first use to trust.
func (s sshCmd) Run(ctx context.Context, p *program) error {
	want, err := read(s.Args)
	if err != nil {
		return err
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	if s.Role != "" {
		if err := s.given(ctx, p, c, want.host); err != nil {
			return err
		}
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return err
	}
	r, err := proved(p, func(code string) (*api.IssueSSHCertificateReply, error) {
		return c.IssueSSHCertificate(ctx, &api.IssueSSHCertificateRequest{
			Host: want.host, PublicKey: string(ssh.MarshalAuthorizedKey(signer.PublicKey())), Code: code,
		})
	})
	if err != nil {
		return err
	}
	if len(r.Addresses) == 0 {
		return fmt.Errorf("host %s has told no address: set `addresses` in its agent.yaml", want.host)
	}
	dir, err := os.MkdirTemp(os.Getenv("XDG_RUNTIME_DIR"), "curfew-ssh-")
	if err != nil {
		return err
	}
	args, err := want.files(dir, key, r)
	if err == nil {
		err = want.ssh(ctx, p, args)
	}
	return errors.Join(err, os.RemoveAll(dir)) //nolint:gosec // MkdirTemp made it
}

// given makes sure that a grant of the role is on the host: it asks for one,
// waits for it to be approved, and for the host to have it.
func (s sshCmd) given(ctx context.Context, p *program, c apiconnect.CurfewClient, host string) error {
	me, err := c.Whoami(ctx, &api.WhoamiRequest{})
	if err != nil {
		return err
	}
	open, err := c.ListRequests(ctx, &api.ListRequestsRequest{})
	if err != nil {
		return err
	}
	for _, r := range open.Requests {
		if r.Person == me.Person.Name && r.Role == s.Role && r.State == "issued" && onHost(r, host) != nil {
			return p.settled(ctx, c, r, host)
		}
	}
	r, err := p.make(ctx, c, &api.CreateRequestRequest{
		Role: s.Role, Hosts: []string{host}, Duration: durationpb.New(time.Duration(s.For)), Reason: s.Why, Ticket: s.Ticket, Key: rand.Text(),
	})
	if err != nil {
		return err
	}
	if r.State == "asked" {
		if r, err = p.wait(ctx, r); err != nil {
			return err
		}
	}
	if r.State != "issued" {
		return exit{exitNotGiven, errors.New(strings.TrimSpace("request " + r.Id + " was " + r.State + " " + r.DecisionNote))}
	}
	return p.settled(ctx, c, r, host)
}

func onHost(r *api.Request, host string) *api.HostState {
	for _, h := range r.HostStates {
		if h.Host == host {
			return h
		}
	}
	return nil
}

// settleWithin is how long a host has to take up a grant.
const settleWithin = 30 * time.Second

// settled waits until the host has the grant.
func (p *program) settled(ctx context.Context, c apiconnect.CurfewClient, r *api.Request, host string) error {
	ctx, done := context.WithTimeout(ctx, settleWithin)
	defer done()
	for {
		if h := onHost(r, host); h != nil && h.State == "installed" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("grant %s stands, and %s has not taken it up yet: see `curfew show %s`, and try again", r.Grant, host, r.Id)
		case <-p.clock.After(200 * time.Millisecond):
		}
		var err error
		if r, err = c.GetRequest(ctx, &api.GetRequestRequest{Id: r.Id}); err != nil {
			return err
		}
	}
}

// files writes what ssh reads, and returns its arguments.
func (c call) files(dir string, key ed25519.PrivateKey, r *api.IssueSSHCertificateReply) ([]string, error) {
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return nil, err
	}
	var known string
	for _, k := range r.HostKeys {
		known += c.host + " " + k + "\n"
	}
	for name, b := range map[string][]byte{
		"key": pem.EncodeToMemory(block), "key-cert.pub": []byte(r.Certificate), "known_hosts": []byte(known),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil { //nolint:gosec // fixed names in a folder that MkdirTemp made
			return nil, err
		}
	}
	host, port, err := net.SplitHostPort(r.Addresses[0])
	if err != nil {
		host, port = r.Addresses[0], "22"
	}
	args := []string{
		"-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-i", filepath.Join(dir, "key"),
		"-o", "CertificateFile=" + filepath.Join(dir, "key-cert.pub"),
		"-o", "UserKnownHostsFile=" + filepath.Join(dir, "known_hosts"), "-o", "GlobalKnownHostsFile=/dev/null",
		"-o", "PreferredAuthentications=publickey", "-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no", "-o", "HostKeyAlias=" + c.host, "-o", "LogLevel=ERROR",
		"-p", port, "-l", r.User,
	}
	// After a "--" ssh reads the next word as the host, and no option more.
	args = append(append(append(args, c.options...), "--", host), c.command...)
	return args, nil
}

// ssh runs the program and passes its exit code on.
func (c call) ssh(ctx context.Context, p *program, args []string) error {
	cmd := exec.CommandContext(ctx, "ssh", args...) //nolint:gosec // the arguments are built above
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.in, p.out, p.err
	err := cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return exit{max(ended.ExitCode(), 1), fmt.Errorf("ssh %s ended: %s", c.host, ended.String())}
	}
	return err
}
