package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// An agent that takes a call and says nothing, as one that was stopped does,
// does not hold up who gives up.
func TestCtrlCNeedsNoAgent(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unixpacket", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "unixpacket", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, press := context.WithCancel(t.Context())
	said := make(chan error, 1)
	go func() {
		_, err := talk{conn: conn}.first(ctx)
		said <- err
	}()
	press()
	if err := <-said; !errors.Is(err, errGivenUp) {
		t.Error(err)
	}
	// Later the agent has a last word, for a while; then it is hung up on.
	k := talk{conn: conn}
	k.hangUp()
	if _, err := k.hear(); !errors.Is(err, errAgentLeft) {
		t.Error(err)
	}
}

func TestSpanLeavesOutWhatIsZeroAlone(t *testing.T) {
	for d, want := range map[time.Duration]string{
		30 * time.Minute: "30m", 2 * time.Hour: "2h", 90 * time.Second: "1m30s", 20 * time.Second: "20s", time.Hour + 10*time.Second: "1h0m10s", 10 * time.Hour: "10h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %q", d, got)
		}
	}
}
