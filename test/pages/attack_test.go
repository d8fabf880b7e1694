package main

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"curfew.internal/wire/api"
)

// newTown has one host and nobody but its admin.
func newTown(t *testing.T) *town {
	t.Helper()
	w, err := settle(t.Context(), t.TempDir(), "", t.Output())
	must(t, err)
	t.Cleanup(func() { must(t, w.leave()) })
	_, err = w.pin(t.Context()) // the pages are up
	must(t, err)
	_, err = w.found(t.Context(), "db1", map[string]string{"tier": "db"})
	must(t, err)
	return w
}

// state is what has become of the request at a path.
func state(t *testing.T, w *town, path string) string {
	t.Helper()
	q, err := w.ada.GetRequest(t.Context(), &api.GetRequestRequest{Id: strings.TrimPrefix(path, "/requests/")})
	must(t, err)
	return q.State
}

func TestAttacks(t *testing.T) {
	w := newTown(t)
	ana, ben := enrolled(t, w, "ana"), enrolled(t, w, "ben")
	path := ana.ask("disk full")
	yes, do := ben.yes(path), path+"/approve"

	t.Run("a form of another site does nothing", func(t *testing.T) {
		for _, origin := range []string{"https://evil.example", "null", "", "http://" + strings.TrimPrefix(w.origin, "https://"), w.origin + ".evil.example"} {
			form := ben.proved(do, yes)
			ben.origin = origin
			if a := ben.post(do, form); a.StatusCode != http.StatusForbidden {
				t.Errorf("from %q: %d", origin, a.StatusCode)
			}
			if a := ben.post(path+"/deny", url.Values{"token": {ben.token()}}); a.StatusCode != http.StatusForbidden {
				t.Errorf("denied from %q: %d", origin, a.StatusCode)
			}
			ben.origin = w.origin
		}
	})
	t.Run("a form without its session's token does nothing", func(t *testing.T) {
		for _, token := range []string{"", "x", ana.token()} {
			if a := ben.post(path+"/deny", url.Values{"token": {token}}); a.StatusCode != http.StatusForbidden {
				t.Errorf("with %q: %d", token, a.StatusCode)
			}
		}
	})
	t.Run("nobody approves her own request", func(t *testing.T) {
		form := clone(yes)
		form.Set("token", ana.token())
		if a := ana.pass(do, form); a.StatusCode != http.StatusForbidden || !strings.Contains(a.body, "someone else has to approve it") {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
	})
	t.Run("an answer for another note or another request does nothing", func(t *testing.T) {
		form := ben.proved(do, yes)
		form.Set("note", "and for ever")
		if a := ben.post(do, form); a.StatusCode != http.StatusForbidden {
			t.Errorf("another note: %d", a.StatusCode)
		}
		other := ana.ask("something else")
		form = ben.yes(other)
		form.Set("assertion", ben.proved(do, yes).Get("assertion"))
		if a := ben.post(other+"/approve", form); a.StatusCode != http.StatusForbidden || state(t, w, other) != "asked" {
			t.Errorf("another request: %d, %s", a.StatusCode, state(t, w, other))
		}
	})
	t.Run("an answer given on another site does nothing", func(t *testing.T) {
		ben.key.Origin = "https://localhost.evil.example"
		if a := ben.pass(do, yes); a.StatusCode != http.StatusForbidden {
			t.Errorf("%d", a.StatusCode)
		}
		ben.key.Origin = w.origin
	})
	t.Run("no answer at all does nothing", func(t *testing.T) {
		if a := ben.post(do, yes); a.StatusCode != http.StatusForbidden || state(t, w, path) != "asked" {
			t.Errorf("%d, %s", a.StatusCode, state(t, w, path))
		}
	})
	t.Run("an answer counts once", func(t *testing.T) {
		form := ben.proved(do, yes)
		if a := ben.post(do, form); a.StatusCode != http.StatusOK || state(t, w, path) != "issued" {
			t.Fatalf("%d, %s", a.StatusCode, state(t, w, path))
		}
		other := ana.ask("once more")
		again := ben.yes(other)
		again.Set("assertion", form.Get("assertion"))
		if a := ben.post(other+"/approve", again); a.StatusCode != http.StatusForbidden || state(t, w, other) != "asked" {
			t.Errorf("again: %d, %s", a.StatusCode, state(t, w, other))
		}
	})
	t.Run("who is not an admin sees nothing of admins' pages", func(t *testing.T) {
		for _, page := range []string{"/fleet", "/policy", "/people"} {
			if a := ana.get(page); a.StatusCode != http.StatusForbidden || strings.Contains(a.body, "db1") || !strings.Contains(a.body, "this is for admins") {
				t.Errorf("%s: %d", page, a.StatusCode)
			}
		}
		if a := ana.pass("/people/add", url.Values{"token": {ana.token()}, "name": {"mallory"}}); a.StatusCode != http.StatusForbidden {
			t.Errorf("added: %d", a.StatusCode)
		}
		if a := ana.pass("/people/email", url.Values{"token": {ana.token()}, "name": {"ben"}, "email": {"mallory@example.com"}}); a.StatusCode != http.StatusForbidden {
			t.Errorf("told elsewhere: %d", a.StatusCode)
		}
	})
	t.Run("a request is not shown to whom it does not concern", func(t *testing.T) {
		eve := enrolled(t, w, "eve")
		if a := eve.get(path); a.StatusCode != http.StatusNotFound || strings.Contains(a.body, "disk full") {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
	})
}

func TestHeaders(t *testing.T) {
	w := newTown(t)
	f := newForms(t, w)
	f.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	a := f.get("/sign-in")
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; " +
			"base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types curfew",
		"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cache-Control": "no-store",
		"Strict-Transport-Security": "max-age=31536000", "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := a.Header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.origin+"/sign-in", nil)
	must(t, err)
	r.Host = "evil.example"
	if a := f.do(r); a.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("another host: %d", a.StatusCode)
	}
	for to, want := range map[string]string{
		"/requests/r-1": "/requests/r-1", "//evil.example": "/", "https://evil.example": "/", `/\evil.example`: "/", "javascript:alert(1)": "/", "/../x": "/", "": "/",
	} {
		if a := f.get("/sign-in?to=" + url.QueryEscape(to)); !strings.Contains(a.body, `name="to" value="`+want+`"`) {
			t.Errorf("to %q does not lead to %s", to, want)
		}
	}
	if a := f.get("/requests/r-1"); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/sign-in?to=%2Frequests%2Fr-1" {
		t.Errorf("not signed in: %d %s", a.StatusCode, a.Header.Get("Location"))
	}
	r.Host, r.URL.Path = "", "/requests/r-1"
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if a := f.do(r); !strings.Contains(a.body, `http-equiv="refresh"`) {
		t.Errorf("from a chat: %d", a.StatusCode)
	}
}

func TestCookie(t *testing.T) {
	w := newTown(t)
	ana := enrolled(t, w, "ana")
	ana.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	a := ana.pass("/sign-in", url.Values{"to": {"/access"}})
	cookie := a.Header.Get("Set-Cookie")
	for _, part := range []string{"__Host-curfew=", "; Path=/", "; HttpOnly", "; Secure", "; SameSite=Strict", "; Max-Age=7"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("%s: no %s", cookie, part)
		}
	}
	if strings.Contains(cookie, "Domain") || a.Header.Get("Location") != "/access" {
		t.Errorf("%s, to %s", cookie, a.Header.Get("Location"))
	}
	if a := ana.post("/sign-out", url.Values{"token": {ana.token()}}); a.StatusCode != http.StatusSeeOther {
		t.Errorf("sign out: %d", a.StatusCode)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.origin+"/access", nil)
	must(t, err)
	value, _, _ := strings.Cut(cookie, ";")
	r.Header.Set("Cookie", value)
	if a := newForms(t, w).do(r); a.Request.URL.Path != "/sign-in" {
		t.Errorf("the cookie of a session that is over opens %s", a.Request.URL.Path)
	}
}
