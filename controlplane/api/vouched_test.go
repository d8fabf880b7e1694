package api_test

import (
	"crypto/ed25519"
	"errors"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
	"curfew.internal/wire/signature"
)

// vouched is ana on a session for which she has used no factor of ours.
func (w *world) vouched(t *testing.T) apiconnect.CurfewClient {
	t.Helper()
	now := w.clock.Now().Wall
	must(t, w.store.Arrive(t.Context(), roster.Arrival{
		Account: roster.Account{Issuer: "https://login.example", Subject: "sub-1", Person: "ana"}, Bind: true,
		Session: roster.Session{ID: "s-vouched", Person: "ana", Device: w.ana.key.Public().(ed25519.PublicKey), Expires: now.Add(time.Hour)},
	}, now))
	return apiconnect.NewCurfewClient(&http.Client{Transport: signature.Transport{
		Base: http.DefaultTransport, Session: "s-vouched", Key: w.ana.key, Now: func() time.Time { return w.clock.Now().Wall },
	}}, w.url)
}

// What the provider says lets ana look. With her grant she does nothing before
// she has proved herself.
func TestVouchedSessionIsProvedBeforeALogin(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	w.issued(t)
	ana := w.vouched(t)
	_, err := ana.ListRequests(ctx, &api.ListRequestsRequest{})
	must(t, err)
	ask := func(code string) error {
		_, err := ana.IssueSSHCertificate(ctx, &api.IssueSSHCertificateRequest{Host: "db1", PublicKey: sshKey(t), Code: code})
		return err
	}
	err = ask("")
	refused(t, err, connect.CodeUnauthenticated, "nobody but the provider")
	if c := (*connect.Error)(nil); !errors.As(err, &c) || c.Meta().Get("Curfew-Needs") != "code" {
		t.Error("it does not say what it needs")
	}
	refused(t, ask("000000"), connect.CodePermissionDenied, "not right")
	must(t, ask(w.ana.fresh(t)))
	must(t, ask("")) // for the rest of the session
}

func TestNoProvider(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	_, err := w.anonymous().BeginSignIn(ctx, &api.BeginSignInRequest{DeviceKey: make([]byte, 32)})
	refused(t, err, connect.CodeFailedPrecondition, "sign in here alone")
	_, err = w.anonymous().BeginSignIn(ctx, &api.BeginSignInRequest{DeviceKey: make([]byte, 32), Port: 1 << 16})
	refused(t, err, connect.CodeInvalidArgument, "no port")
	_, err = w.anonymous().FinishSignIn(ctx, &api.FinishSignInRequest{DeviceKey: make([]byte, 32), Signature: make([]byte, 64)})
	refused(t, err, connect.CodeUnauthenticated, "not for this command line")
}
