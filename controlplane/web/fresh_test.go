package web

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// desk is the API of somebody who proved herself at that time. It takes a request
// without a proof until that is too long ago.
type desk struct {
	large
	clock  *ticking
	proved time.Time
	asked  []*api.CreateRequestRequest
	longer *api.ExtendRequest
}

const window = 10 * time.Minute

// ticking is a clock that a test moves on.
type ticking struct{ stopped }

func (d *desk) As(ctx context.Context, _ string) (context.Context, error) { return ctx, nil }

func (d *desk) Own(context.Context) (roster.Own, error) {
	return roster.Own{Factors: roster.Factors{TOTP: true, Passkeys: []roster.Passkey{{}}}}, nil
}

func (d *desk) Whoami(context.Context, *api.WhoamiRequest) (*api.WhoamiReply, error) {
	return &api.WhoamiReply{Person: &api.Person{Name: "ana"}, Proof: &api.Proof{At: timestamppb.New(d.proved)}}, nil
}

func (d *desk) ListRoles(context.Context, *api.ListRolesRequest) (*api.ListRolesReply, error) {
	return &api.ListRolesReply{Roles: []*api.Role{{Name: "ops", Hosts: []string{"db1", "db2"}, MaxDuration: durationpb.New(time.Hour), Freshness: durationpb.New(window)}}}, nil
}

func (d *desk) CreateRequest(_ context.Context, m *api.CreateRequestRequest) (*api.Request, error) {
	d.asked = append(d.asked, m)
	if m.Code == "" && d.clock.now.Sub(d.proved) >= window {
		return nil, roster.Refuse(roster.Stale, "prove yourself for this")
	}
	return &api.Request{Id: "r-1"}, nil
}

func (d *desk) Extend(_ context.Context, m *api.ExtendRequest) (*api.Request, error) {
	d.longer = m
	return &api.Request{Id: "r-2"}, nil
}

// A page that stood open while the proof grew too old asks with what was typed
// for one then, and nobody has to sign in.
func TestAPageThatStoodOpenAsksForAProofThen(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := &ticking{stopped{now}}
	d := &desk{clock: c, proved: now.Add(-4 * time.Minute)}
	s := &Server{Origin: "https://curfew.example", API: d, Clock: c}
	h := s.Handler()
	call := func(method string, form url.Values) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), method, "https://curfew.example/ask/ops", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", s.Origin)
		r.AddCookie(&http.Cookie{Name: cookieName, Value: "secret"})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	const without = `name="by" value="earlier"`
	if page := call(http.MethodGet, nil); page.Code != http.StatusOK || !strings.Contains(page.Body.String(), without) {
		t.Errorf("%d: %s", page.Code, page.Body)
	}
	form := url.Values{"token": {visitor{secret: "secret"}.token()}, "on": {"db2"}, "for": {"1h"}, "why": {"the other one, too"}, "by": {"earlier"}}
	if made := call(http.MethodPost, form); made.Code != http.StatusSeeOther || made.Header().Get("Location") != "/requests/r-1" {
		t.Errorf("%d: %s", made.Code, made.Body)
	}
	c.now = now.Add(window)
	late := call(http.MethodPost, form)
	for _, want := range []string{"prove yourself for this", `value="db2" checked`, "the other one, too", "data-passkey"} {
		if !strings.Contains(late.Body.String(), want) {
			t.Errorf("%q is not in %d: %s", want, late.Code, late.Body)
		}
	}
	if strings.Contains(late.Body.String(), without) || len(d.asked) != 2 || d.asked[1].Code != "" || d.asked[1].Assertion != nil {
		t.Errorf("%v\n%s", d.asked, late.Body)
	}
	form.Set("code", "123456")
	if made := call(http.MethodPost, form); made.Code != http.StatusSeeOther || d.asked[2].Code != "123456" {
		t.Errorf("%d: %s", made.Code, made.Body)
	}
}

// What asks has a key, by which it makes nothing twice: the script fills it in.
func TestFormsThatAskHaveAKey(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	q := &api.Request{Id: "r-1", Person: "ana", Role: "ops", Hosts: []string{"db1"}, Duration: durationpb.New(time.Hour)}
	for name, data := range map[string]any{
		"ask":     askView{Role: &api.Role{Name: "ops"}},
		"home":    homeView{Roles: []roleView{{Role: &api.Role{Name: "ops"}, Last: q}}},
		"request": requestView{Request: &api.Request{Id: "r-1", State: "issued", Duration: q.Duration}, MayExtend: true},
	} {
		if text := written(t, page{Name: name, Title: "x", Data: data, Me: &api.Person{Name: "ana"}}); strings.Count(text, `<input type="hidden" name="key">`) != 1 {
			t.Errorf("%s: %s", name, text)
		}
	}
	c := &ticking{stopped{now}}
	d := &desk{clock: c, proved: now}
	s := &Server{Origin: "https://curfew.example", API: d, Clock: c}
	for _, path := range []string{"/ask/ops", "/requests/r-1/extend"} {
		form := url.Values{"token": {visitor{secret: "secret"}.token()}, "on": {"db1"}, "for": {"1h"}, "key": {"k-1"}}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://curfew.example"+path, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", s.Origin)
		r.AddCookie(&http.Cookie{Name: cookieName, Value: "secret"})
		s.Handler().ServeHTTP(httptest.NewRecorder(), r)
	}
	if len(d.asked) != 1 || d.asked[0].Key != "k-1" || d.longer.GetKey() != "k-1" {
		t.Errorf("%v, %v", d.asked, d.longer)
	}
}
