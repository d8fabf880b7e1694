package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"curfew.internal/wire/api"
)

type listHostsCmd struct {
	Doctor bool `help:"Show what is wrong with them, and the commands that mend it."`
}

// Run lists hosts.
func (l listHostsCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.ListHosts(ctx, &api.ListHostsRequest{})
	if err != nil {
		return err
	}
	return p.print(r, func() error {
		if l.Doctor {
			for _, h := range r.Hosts {
				if !h.Decommissioned {
					examined(p.out, h)
				}
			}
			return nil
		}
		var rows [][]string
		for _, h := range r.Hosts {
			rows = append(rows, []string{
				h.Name, hostState(h), labels(h), fmt.Sprintf("%d/%d", h.RevisionApplied, h.Revision), at(h.LastSeen), h.Mode, h.Access,
			})
		}
		return table(p.out, "HOST STATE LABELS REVISION LAST-SEEN MODE ACCESS", rows)
	})
}

type showHostCmd struct {
	Name string `arg:"" help:"The host."`
}

// Run shows one host, and what is wrong with it.
func (s showHostCmd) Run(ctx context.Context, p *program) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	r, err := c.ListHosts(ctx, &api.ListHostsRequest{})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(r.Hosts, func(h *api.Host) bool { return h.Name == s.Name })
	if i < 0 {
		return exit{exitRefused, fmt.Errorf("there is no host %q: `curfew hosts` lists them", s.Name)}
	}
	h := r.Hosts[i]
	return p.print(h, func() error {
		fmt.Fprintf(p.out, "state      %s\nlabels     %s\naddresses  %s\nrevision   %d held, %d to hold\nlast seen  %s\nagent      %s\nkernel     %s\nsudo, su   %s\n",
			hostState(h), labels(h), strings.Join(h.Addresses, ", "), h.RevisionApplied, h.Revision, at(h.LastSeen), h.AgentVersion, h.Mode, accessText(h.Access))
		examined(p.out, h)
		return nil
	})
}

// accessText is what a host does with sudo and su without a grant.
func accessText(access string) string {
	switch access {
	case "observe":
		return "without a grant: recorded, and let through"
	case "enforce":
		return "without a grant: refused"
	}
	return "without a grant: not known"
}

// examined prints what a host's doctor said last. It is the host's word, and so
// is what it would have somebody type there.
func examined(w io.Writer, h *api.Host) {
	if h.Examined == nil {
		fmt.Fprintf(w, "%s: its doctor has not looked yet\n", h.Name)
		return
	}
	worst := "fine"
	if len(h.Findings) > 0 {
		worst = h.Findings[0].Severity
	}
	fmt.Fprintf(w, "%s: %s, as it says itself, as of %s\n", h.Name, worst, at(h.Examined))
	for _, f := range h.Findings {
		fmt.Fprintf(w, "  %-8s %s: %s\n           mend, as %s says: %s\n", f.Severity, f.Check, f.Says, h.Name, f.Mend)
	}
}

func labels(h *api.Host) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(h.Labels)) {
		all = append(all, k+"="+h.Labels[k])
	}
	return strings.Join(all, ",")
}

func hostState(h *api.Host) string {
	switch {
	case h.Leaving:
		return "decommissioned, NOT CONFIRMED"
	case h.Decommissioned:
		return "decommissioned"
	case h.Refused != "":
		return "REFUSES: " + h.Refused
	case len(h.Unwired) > 0:
		return "UNWIRED: " + strings.Join(h.Unwired, "; ")
	case !h.Connected:
		return "away"
	}
	for _, f := range h.Findings {
		if f.Severity == "broken" {
			return "connected, BROKEN: " + f.Check
		}
	}
	return "connected"
}
