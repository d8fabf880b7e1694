package agent

import (
	"cmp"
	"context"
	"crypto/x509"
	"os"
	"strings"

	"curfew.internal/agent/doctor"
	"curfew.internal/agent/host"
	"curfew.internal/agent/keep"
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
