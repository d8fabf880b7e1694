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

	"golang.org/x/crypto/ssh"

	"curfew.internal/wire/api"
)

type sshCmd struct {
	Host string   `arg:"" help:"The host."`
	Args []string `arg:"" optional:"" passthrough:"" help:"More for ssh: options, then the command to run there."`
}

// Run gets a certificate that ends with the grant, for a key that lives as
// long as this call, and hands over to ssh. The host is known by the keys
// that it enrolled with: there is no first use to trust.
func (s sshCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return err
	}
	r, err := c.IssueSSHCertificate(ctx, &api.IssueSSHCertificateRequest{
		Host: s.Host, PublicKey: string(ssh.MarshalAuthorizedKey(signer.PublicKey())),
	})
	if err != nil {
		return err
	}
	if len(r.Addresses) == 0 {
		return fmt.Errorf("host %s has told no address: set `addresses` in its agent.yaml", s.Host)
	}
	dir, err := os.MkdirTemp(os.Getenv("XDG_RUNTIME_DIR"), "curfew-ssh-")
	if err != nil {
		return err
	}
	args, err := s.files(dir, key, r)
	if err == nil {
		err = s.ssh(ctx, p, args)
	}
	return errors.Join(err, os.RemoveAll(dir)) //nolint:gosec // MkdirTemp made it
}

// files writes what ssh reads, and returns its arguments.
func (s sshCmd) files(dir string, key ed25519.PrivateKey, r *api.IssueSSHCertificateReply) ([]string, error) {
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return nil, err
	}
	var known string
	for _, k := range r.HostKeys {
		known += s.Host + " " + k + "\n"
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
		"-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no", "-o", "HostKeyAlias=" + s.Host, "-o", "LogLevel=ERROR",
		"-p", port, "-l", r.User,
	}
	// ssh takes options before and after the host; the command comes last.
	i := 0
	for i < len(s.Args) && len(s.Args[i]) > 1 && s.Args[i][0] == '-' && s.Args[i] != "--" {
		i++
	}
	rest := s.Args[i:]
	if len(rest) > 0 && rest[0] == "--" {
		rest = rest[1:]
	}
	args = append(append(append(args, s.Args[:i]...), "--", host), rest...)
	return args, nil
}

// ssh runs the program and passes its exit code on.
func (s sshCmd) ssh(ctx context.Context, p *program, args []string) error {
	cmd := exec.CommandContext(ctx, "ssh", args...) //nolint:gosec // the arguments are built above
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.in, p.out, p.err
	err := cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return exit{max(ended.ExitCode(), 1), fmt.Errorf("ssh %s ended: %s", s.Host, ended.String())}
	}
	return err
}
