package api_test

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"curfew.internal/dsse"
	"curfew.internal/wire/api"
)

// login tries to sign in with ana's device.
func (w *world) login(t *testing.T, person, code string) error {
	t.Helper()
	now := w.clock.Now().Wall.Unix()
	_, err := w.anonymous().Login(t.Context(), &api.LoginRequest{
		Person: person, DeviceKey: w.ana.key.Public().(ed25519.PublicKey), At: now, Code: code,
		Signature: ed25519.Sign(w.ana.key, dsse.PAE("application/vnd.curfew.login.v1", []byte("lab\x00"+person+"\x00"+itoa(now)))),
	})
	return err
}

// signIns is what the record tells of somebody's sign-ins, behind those of the
// world's making.
func (w *world) signIns(t *testing.T, person string) []string {
	t.Helper()
	must(t, w.server.Alert(t.Context()))
	all, err := w.ada.SearchEvents(t.Context(), &api.SearchEventsRequest{Kind: "sign-in", Person: person})
	must(t, err)
	var said []string
	for _, e := range all.Events {
		said = append(said, e.Step+" "+e.Outcome+": "+e.Text)
	}
	return said
}

func TestSignInsAreInTheRecord(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	refused(t, w.login(t, "ana", "000000"), connect.CodePermissionDenied, "not right")
	must(t, w.server.Alert(ctx))
	w.clock.pass(time.Minute)
	must(t, w.login(t, "ana", w.ana.code(t)))
	_, err := w.ana.Logout(ctx, &api.LogoutRequest{})
	must(t, err)
	if diff := cmp.Diff([]string{
		"signed-in ok: device laptop",
		"turned-away refused: that code is not right (or was used already): wait for the next one and try again",
		"signed-in ok: device laptop",
		"signed-out ok: device laptop",
	}, w.signIns(t, "ana")); diff != "" {
		t.Error(diff)
	}
	_, err = w.ada.DisablePerson(ctx, &api.DisablePersonRequest{Name: "ana"})
	must(t, err)
	if all := w.signIns(t, "ana"); len(all) != 5 || all[4] != "cut-off ok: device laptop" {
		t.Errorf("sessions that ended with their person: %q", all)
	}
	if got := exported(t, w.ada, &api.ExportRecordRequest{}); len(got.Findings) > 0 {
		t.Errorf("%v", got.Findings)
	}
}

// Who knows a name, and no more, does not fill the record.
func TestManySignInsThatFailAreFewEntries(t *testing.T) {
	w := newWorld(t)
	for range 40 {
		refused(t, w.login(t, "ben", "000000"), connect.CodeUnauthenticated, "not signed up")
		refused(t, w.login(t, "nobody", "000000"), connect.CodeUnauthenticated, "not signed up")
	}
	if all := w.signIns(t, "ben"); len(all) != 2 || !strings.HasPrefix(all[1], "turned-away refused: 40 times since 2026-03-01T12:01:00Z, the last time: this device is not signed up") {
		t.Errorf("at once: %q", all)
	}
	w.clock.pass(time.Minute - time.Second)
	refused(t, w.login(t, "ben", "000000"), connect.CodeUnauthenticated, "not signed up")
	if all := w.signIns(t, "ben"); len(all) != 2 {
		t.Errorf("before a minute is over: %q", all)
	}
	w.clock.pass(time.Second)
	for range 2 {
		if all := w.signIns(t, "ben"); len(all) != 3 || !strings.HasPrefix(all[2], "turned-away refused: this device") {
			t.Errorf("when it is: %q", all)
		}
	}
	if all := w.signIns(t, "nobody"); len(all) > 0 {
		t.Errorf("of somebody whom nobody knows: %q", all)
	}
}

// A proof that was wrong is in the record also where somebody is signed in.
func TestWrongProofsAreInTheRecord(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	r := w.ask(t)
	_, err := w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: "000000"})
	refused(t, err, connect.CodePermissionDenied, "not right")
	got, err := w.ada.SearchEvents(ctx, &api.SearchEventsRequest{Kind: "refused", Person: "ben"})
	if err != nil || len(got.Events) != 1 || got.Events[0].Text != "a proof by totp was not accepted" || got.Events[0].Outcome != "refused" {
		t.Errorf("%v, %v", got, err)
	}
}
