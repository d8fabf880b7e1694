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
	mu sync.Mutex
	ca string // authorized_keys format
}

func (t *trusted) get() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ca
}

// is takes what the control plane says, and reports whether that is news.
func (t *trusted) is(ca string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	news := t.ca != ca
	t.ca = ca
	return news
}

// trust takes the CA that the control plane names.
func (a *Agent) trust(p *parts, ca string) {
	if _, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(ca)); err != nil || len(rest) > 0 {
		a.Log.Error("the control plane names a CA for sshd that cannot be read: the one of before stays", "err", err)
		return
	}
	if p.trusted.is(ca) {
		a.Log.Info("the control plane names another CA for sshd than this host knew")
		a.Wake()
	}
}

// mendTrust has sshd trust our CA alone: one that somebody adds would open
// accounts for as long as it is there.
func (a *Agent) mendTrust(ctx context.Context, p *parts, tell func(ledger.Entry)) {
	file, mended, err := keep.MendSSHCA(p.Config, p.trusted.get())
	if err != nil && a.news("trust", err.Error()) {
		a.Log.ErrorContext(ctx, "the CA that sshd trusts is not put right", "err", err)
	}
	if mended {
		w, ok := p.writers.Take(file)
		tell(a.drifted(file+" was changed or removed", "it was put right", w, ok))
	}
}
