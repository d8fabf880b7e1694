package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"curfew.internal/grant"
	"curfew.internal/ledger"
)

func TestWhoCallsSudoWithoutAGrantIsRecorded(t *testing.T) {
	for _, c := range []struct {
		name     string
		enforced bool
		kind     ledger.Kind
		then     string
	}{
		{"let through where it is only observed", false, ledger.WouldRefuse, "let through"},
		{"refused in enforce mode", true, ledger.Refused, "refused, since"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.offered.Grants = []grant.Grant{held("g-a", "ana", 0, time.Hour)}
				a := w.agent(t)
				a.Barred = func(_ context.Context, service, caller string) (bool, bool, error) {
					if caller == "odd" {
						return false, c.enforced, errors.New("no answer")
					}
					return service == "sudo" && caller == "bob", c.enforced, nil
				}
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- a.access(ctx) }()
				call := func(k Knock) {
					t.Helper()
					if got := a.Knock(t.Context(), k); !got.Stranger || got.Allow {
						t.Errorf("%+v: %+v", k, got)
					}
					synctest.Wait()
				}
				for range 3 {
					call(Knock{Service: "sudo", User: "root", RUser: "bob", PID: 7})
				}
				call(Knock{Service: "sudo", User: "root", RUser: "bob", Open: true}) // the same call's session
				call(Knock{Service: "sudo", User: "root", RUser: "key"})             // whom enforce mode lets through
				call(Knock{Service: "sudo", User: "root", RUser: "odd"})
				if len(w.entries) != 1 || a.BarredCalls() != 3 {
					t.Fatalf("%d calls, %+v", a.BarredCalls(), w.entries)
				}
				if e := w.entries[0]; e.Kind != c.kind || e.Person != "" || e.Process.PID != 7 || !strings.HasPrefix(e.Text, "bob called sudo without a grant; "+c.then) {
					t.Errorf("%+v", e)
				}
				w.now = w.now.Add(again)
				call(Knock{Service: "sudo", User: "root", RUser: "bob"})
				if len(w.entries) != 2 || !strings.HasSuffix(w.entries[1].Text, "; 2 more times since the entry before") || a.BarredCalls() != 4 {
					t.Errorf("%d calls, %+v", a.BarredCalls(), w.entries)
				}
				stop()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		})
	}
}

// More calls than anybody looks at hold no knock up.
func TestAFloodOfCallsHoldsNobodyUp(t *testing.T) {
	a := newWorld().agent(t)
	a.Barred = func(context.Context, string, string) (bool, bool, error) { return true, false, nil }
	for range 3 * elevations {
		if got := a.Knock(t.Context(), Knock{Service: "sudo", User: "root", RUser: "bob"}); !got.Stranger {
			t.Fatalf("%+v", got)
		}
	}
}
