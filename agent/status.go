package agent

import (
	"context"
	"errors"
	"time"

	"curfew.internal/agent/keep"
	"curfew.internal/agent/uplink"
	"curfew.internal/grant"
)

// A Status is what a running agent says of itself.
type Status struct {
	Fleet     string        `json:"fleet"`
	Host      string        `json:"host"`
	At        time.Time     `json:"at"`
	Version   string        `json:"version"`
	Plane     string        `json:"plane,omitempty"` // version of the control plane, once it was heard
	Mode      string        `json:"mode"`
	Connected bool          `json:"connected"`
	Refused   string        `json:"refused,omitempty"` // by the control plane, and why
	Access    string        `json:"access,omitempty"`  // to sudo and su without a grant; empty: not wired
	Barred    uint64        `json:"barred"`            // calls without a grant
	Revision  uint64        `json:"revision"`
	Roster    uint64        `json:"roster,omitempty"` // of people's keys; none: this host holds no roster
	Settled   bool          `json:"settled"`
	Grants    []grant.Grant `json:"grants"`
	Sessions  []Session     `json:"sessions"`
	Sent      uint64        `json:"events_sent"`
	Lost      uint64        `json:"events_lost"`
	Skipped   uint64        `json:"programs_skipped"` // calls of BPF programs, as the kernel counts them
	Unwired   []string      `json:"unwired"`
	Clock     string        `json:"clock,omitempty"` // what is wrong with it, by the control plane's
	Key       string        `json:"key"`             // by which receipts and seals are signed, as `curfew verify` names it
}

const statusName = "status"

// publish writes the status where `curfew-agent status` finds it, after each
// pass and in between.
func (a *Agent) publish(ctx context.Context, p *parts, client *uplink.Client, passed <-chan struct{}) error {
	folder := keep.Folder{Dir: p.Run}
	for {
		counts, err := p.watch.Counts()
		if err != nil {
			a.Log.WarnContext(ctx, "event counts not read", "err", err)
		}
		if a.wiring(ctx, p) {
			client.Report()
		}
		now := a.now()
		err = folder.Save(statusName, Status{
			Fleet: a.Fleet, Host: a.Name, At: now, Version: string(p.version), Plane: client.Plane(), Mode: p.watch.Mode(), Connected: client.Connected(), Refused: client.Refused(), Revision: a.Revision(), Roster: p.kept.Roster(),
			Settled: a.Settled(), Grants: a.live(now), Sessions: a.sessionsNow(), Sent: counts.Made - counts.Lost, Lost: counts.Lost, Skipped: counts.Skipped, Unwired: p.unwired.list(), Clock: a.ClockText(), Access: p.access(), Barred: a.BarredCalls(),
			Key: p.identity.KeyID(),
		})
		if err != nil {
			a.Log.WarnContext(ctx, "status not written", "err", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-passed:
		case <-a.Clock.After(2 * time.Second):
		}
	}
}

// access is what this host does with sudo and su without a grant.
func (p *parts) access() string {
	switch w, was, err := p.host.Wiring(); {
	case err != nil || !was:
		return ""
	case w.Enforce:
		return Enforce
	}
	return Observe
}

// ReadStatus returns what the agent of this host said last.
func ReadStatus(f Folders) (Status, error) {
	var s Status
	found, err := keep.Folder{Dir: f.Run}.Load(statusName, &s)
	if err == nil && !found {
		err = errors.New("the agent has not run since this host started: see `systemctl status curfew-agent`")
	}
	return s, err
}
