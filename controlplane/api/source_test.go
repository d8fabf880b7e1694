package api_test

import (
	"testing"

	"connectrpc.com/connect"

	"curfew.internal/wire/api"
)

// The address from which somebody asked is hers at each approval, too, and not
// that of whoever approves.
func TestTheAddressOfTheRequesterIsJudged(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	w.rules.change(func() { w.rules.from = "127.0.0.1" })
	r := w.ask(t)
	if r.Source != "127.0.0.1" {
		t.Errorf("from %q", r.Source)
	}
	yes := func() (*api.Request, error) {
		return w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	}
	w.rules.change(func() { w.rules.from = "10.0.0.7" })
	_, err := yes()
	refused(t, err, connect.CodeFailedPrecondition, `does not allow this request any more: "127.0.0.1" is not 10.0.0.7`)
	w.rules.change(func() { w.rules.from = "127.0.0.1" })
	now, err := yes()
	must(t, err)
	if now.State != "issued" {
		t.Error(now.State)
	}
}
