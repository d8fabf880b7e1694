package uplink_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/agent/uplink"
	"curfew.internal/controlplane/roster"
)

// A desk is the control plane's answer to shells.
type desk struct {
	refuse error

	mu    sync.Mutex // guards what follows
	typed []roster.Typed
	wish  roster.Wish
	back  []string
}

func (d *desk) Offer(_ context.Context, t roster.Typed) ([]roster.Offer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.typed = append(d.typed, t)
	o := roster.Offer{Description: "Look", MaxDuration: time.Hour, ReasonRequired: true, Approvers: []string{"ben"}, Needed: 1}
	o.Role.Name = "ops"
	return []roster.Offer{o}, d.refuse
}

func (d *desk) Ask(_ context.Context, w roster.Wish, tell func(roster.Told) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wish = w; d.refuse != nil {
		return d.refuse
	}
	now := roster.Told{ID: "r-1", State: "asked", WaitsFor: "ben", Lapses: time.Unix(1e9, 0)}
	if err := tell(now); err != nil {
		return err
	}
	return tell(roster.Told{ID: "r-1", State: "issued", Lapses: time.Unix(1e9, 0), Approved: []string{"ben"}, Grant: "g-1"})
}

func (d *desk) TakeBack(_ context.Context, host, person, key string) (roster.Told, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.back = append(d.back, host+" "+person+" "+key)
	return roster.Told{ID: "r-1", State: "withdrawn", By: person, Note: "n"}, d.refuse
}

func TestShellsReachTheControlPlane(t *testing.T) {
	w := newWorld(t)
	w.shell = &desk{}
	w.serve()
	h := w.host(w.join("db1")).start()
	typed := uplink.Typed{Person: "ana", Session: 9, RunAs: "root", Paths: []string{"/usr/bin/id"}, Args: []string{"-u"}, Directory: "/tmp"}
	offers, err := h.client.Offer(t.Context(), typed)
	if want := []uplink.Offer{{Role: "ops", Description: "Look", Most: time.Hour, Reason: true, Approvers: []string{"ben"}, Needed: 1}}; err != nil || !cmp.Equal(offers, want) {
		t.Errorf("%v, %v", offers, err)
	}
	// The host is the one of the certificate.
	if want := (roster.Typed{Host: "db1", Person: "ana", Session: 9, RunAs: "root", Paths: []string{"/usr/bin/id"}, Args: []string{"-u"}, Directory: "/tmp"}); !cmp.Equal(w.shell.typed, []roster.Typed{want}) {
		t.Error(cmp.Diff(w.shell.typed, []roster.Typed{want}))
	}
	var states []string
	err = h.client.Ask(t.Context(), uplink.Wish{Typed: typed, Role: "ops", Reason: "r", Ticket: "t", Code: "1", For: time.Minute, Key: "k"}, func(now uplink.Told) {
		states = append(states, now.State+" "+now.Grant)
	})
	if err != nil || !slices.Equal(states, []string{"asked ", "issued g-1"}) {
		t.Errorf("%q, %v", states, err)
	}
	if m := w.shell.wish; m.Host != "db1" || m.Role != "ops" || m.Reason != "r" || m.Ticket != "t" || m.Code != "1" || m.Duration != time.Minute || m.Key != "k" {
		t.Error("another wish came")
	}
	now, err := h.client.TakeBack(t.Context(), "ana", "k")
	if err != nil || now.State != "withdrawn" || now.By != "ana" || now.Note != "n" || !slices.Equal(w.shell.back, []string{"db1 ana k"}) {
		t.Errorf("%+v, %v, %q", now, err, w.shell.back)
	}
}

func TestANoIsToldFromNoAnswer(t *testing.T) {
	w := newWorld(t)
	w.shell = &desk{refuse: roster.Refuse(roster.Denied, "not you")}
	stop := w.serve()
	h := w.host(w.join("db1")).start()
	calls := map[string]func() error{
		"offer":     func() error { _, err := h.client.Offer(t.Context(), uplink.Typed{}); return err },
		"ask":       func() error { return h.client.Ask(t.Context(), uplink.Wish{For: time.Minute}, func(uplink.Told) {}) },
		"take back": func() error { _, err := h.client.TakeBack(t.Context(), "ana", "k"); return err },
	}
	for name, call := range calls {
		r := (*uplink.Refusal)(nil)
		if err := call(); !errors.As(err, &r) || r.Text != "not you" {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is not for people to know goes to the server's log.
	w.shell.refuse = errors.New("disk on fire")
	for name, call := range calls {
		if err := call(); !errors.Is(err, uplink.ErrAway) || strings.Contains(err.Error(), "fire") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !strings.Contains(w.log.String(), "disk on fire") {
		t.Error("the operator is not told")
	}
	stop()
	for name, call := range calls {
		if err := call(); !errors.Is(err, uplink.ErrAway) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A host that was broken into is heard so often and no more, and one that has
// left not at all.
func TestAHostAsksNotWithoutEnd(t *testing.T) {
	w := newWorld(t)
	w.shell = &desk{}
	w.serve()
	h := w.host(w.join("db1")).start()
	other := w.host(w.join("db2")).start()
	ask := func(c *uplink.Client) error {
		return c.Ask(t.Context(), uplink.Wish{For: time.Minute}, func(uplink.Told) {})
	}
	var err error
	for n := 0; err == nil; n++ {
		if err = ask(h.client); n > 100 {
			t.Fatal("it asks for ever")
		}
	}
	if r := (*uplink.Refusal)(nil); !errors.As(err, &r) || !strings.Contains(r.Text, "asks too often") {
		t.Error(err)
	}
	if err := ask(other.client); err != nil {
		t.Errorf("another host pays for it: %v", err)
	}
	w.store.alter("db2", func(v *roster.Host) { v.Decommissioned = true })
	if err := ask(other.client); err == nil || !strings.Contains(err.Error(), "decommissioned") {
		t.Error(err)
	}
}
