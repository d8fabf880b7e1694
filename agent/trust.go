package agent

import (
	"context"
	"sync"

	"golang.org/x/crypto/ssh"

	"curfew.internal/agent/keep"
	"curfew.internal/ledger"
)

// trusted is the CA that sshd is to trust: as the control plane said last, and
// until it was heard, as the host's file said at the start.
type trusted struct {
	mu sync.Mutex // also held while the file is written
	ca string     // authorized_keys format; empty: not known
}

// trust takes the CA that the control plane names.
func (a *Agent) trust(p *parts, ca string) {
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(ca))
	if err != nil || len(rest) > 0 {
		a.Log.Error("the control plane names a CA for sshd that cannot be read: the one of before stays", "err", err)
		return
	}
	p.trusted.mu.Lock()
	defer p.trusted.mu.Unlock()
	if p.trusted.ca == ca {
		return
	}
	before := "none"
	if old, _, _, _, err := ssh.ParseAuthorizedKey([]byte(p.trusted.ca)); err == nil {
		before = ssh.FingerprintSHA256(old)
	}
	p.trusted.ca = ca
	text := "the control plane names the CA that sshd is to trust: " + ssh.FingerprintSHA256(key) + "; before, this host knew " + before
	a.Log.Warn("another CA for sshd", "what", text)
	a.append(ledger.Entry{Kind: ledger.Agent, At: a.Clock.Now().Wall, Text: text})
	if _, _, err := keep.MendSSHCA(p.Config, ca); err != nil {
		a.Log.Error("the CA that sshd trusts is not written", "err", err) // the next look tries again
	}
}

// mendTrust has sshd trust our CA alone: one that somebody adds would open
// accounts for as long as it is there.
func (a *Agent) mendTrust(ctx context.Context, p *parts, tell func(ledger.Entry)) {
	p.trusted.mu.Lock()
	defer p.trusted.mu.Unlock()
	if p.trusted.ca == "" {
		return // its file was gone at the start, and the control plane is not heard yet
	}
	file, mended, err := keep.MendSSHCA(p.Config, p.trusted.ca)
	if err != nil && a.news("trust", err.Error()) {
		a.Log.ErrorContext(ctx, "the CA that sshd trusts is not put right", "err", err)
	}
	if mended {
		w, ok := p.writers.Take(file)
		tell(a.drifted(file+" was changed or removed", "it was put right", w, ok))
	}
}
