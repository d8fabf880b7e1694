package agent

import (
	"cmp"
	"context"
	"crypto/x509"
	"os"
	"strings"
	"sync"
	"time"

	"curfew.internal/agent/doctor"
	"curfew.internal/agent/host"
	"curfew.internal/agent/keep"
	"curfew.internal/agent/uplink"
	"curfew.internal/clock"
)

// Doctor says what is wrong with this host, and what mends it. It changes
// nothing, and needs no agent that runs.
func Doctor(ctx context.Context, f Folders, v Version) doctor.Report {
	h := &host.Host{Root: "/", Clock: clock.System{}}
	said, a := whatAgentSays(f)
	var people []string
	if said.At.Add(doctor.Old).After(clock.System{}.Now().Wall) {
		for _, g := range said.Grants {
			people = append(people, g.Person.Name)
		}
	}
	facts := h.Facts(ctx, people)
	facts.Agent, facts.Version, facts.Host = a, string(v), said.Host
	if facts.Host == "" {
		name, _ := os.Hostname() // it only names the report
		facts.Host, _, _ = strings.Cut(strings.ToLower(name), ".")
	}
	facts.Now = clock.System{}.Now().Wall
	return doctor.Examine(facts)
}

// rounds is how long the agent waits before it has itself looked over again.
const rounds = 10 * time.Minute

// examined is what the doctor said last.
type examined struct {
	mu     sync.Mutex // guards what follows
	report doctor.Report
	again  chan struct{} // holds one when it should look before its time
}

func (e *examined) last() doctor.Report {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.report
}

// ask has the doctor look before its time.
func (e *examined) ask() {
	select {
	case e.again <- struct{}{}:
	default: // asked already
	}
}

// examine has the doctor look over this host from time to time, and the
// control plane told of it.
func (a *Agent) examine(ctx context.Context, p *parts, client *uplink.Client) error {
	wait := a.Clock.After(10 * time.Second) // what starts with the host has started then
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.examined.again:
		case <-wait:
		}
		r := Doctor(ctx, p.Folders, p.version)
		p.examined.mu.Lock()
		p.examined.report = r
		p.examined.mu.Unlock()
		client.Report()
		wait = a.Clock.After(rounds)
	}
}

// whatAgentSays reads who this host is, and what its agent said last.
func whatAgentSays(f Folders) (Status, doctor.Agent) {
	var a doctor.Agent
	id, err := keep.LoadIdentity(f.Config)
	if err != nil {
		a.Joined = err.Error()
	} else if leaf, err := x509.ParseCertificate(id.Certificate); err == nil {
		a.Ends = leaf.NotAfter
	}
	if c, err := ReadConfig(f.Config); err == nil {
		a.Server = c.Server
	} else if a.Joined == "" {
		a.Joined = err.Error()
	}
	s, err := ReadStatus(f)
	if err != nil {
		a.Said = err.Error()
	}
	a.At, a.Version, a.Plane, a.Connected, a.Refused = s.At, s.Version, s.Plane, s.Connected, s.Refused
	a.Clock, a.Mode = s.Clock, s.Mode
	s.Host = cmp.Or(id.Name, s.Host)
	return s, a
}
