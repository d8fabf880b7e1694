package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"curfew.internal/test/passkey"
)

// forms is a browser without a screen: it keeps cookies and sends forms. What
// a real one would never do, it does when it is told to.
type forms struct {
	*http.Client
	t      *testing.T
	town   *town
	key    *passkey.Key
	origin string // that it says forms come from
}

func newForms(t *testing.T, w *town) *forms {
	t.Helper()
	jar, err := cookiejar.New(nil)
	must(t, err)
	base := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true} // played on loopback
	t.Cleanup(base.CloseIdleConnections)
	return &forms{Client: &http.Client{Jar: jar, Transport: base}, t: t, town: w, key: passkey.New(w.origin), origin: w.origin}
}

// answer is what came of a request.
type answer struct {
	*http.Response
	body string
}

func (f *forms) do(r *http.Request) answer {
	f.t.Helper()
	res, err := f.Do(r)
	must(f.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(f.t, err)
	return answer{res, string(b)}
}

func (f *forms) get(path string) answer {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, f.town.origin+path, nil)
	must(f.t, err)
	return f.do(r)
}

func (f *forms) post(path string, fields url.Values) answer {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, f.town.origin+path, strings.NewReader(fields.Encode()))
	must(f.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if f.origin != "" {
		r.Header.Set("Origin", f.origin)
	}
	return f.do(r)
}

var tokenForm = regexp.MustCompile(`name="token" value="([^"]+)"`)

// token is that of her session's forms.
func (f *forms) token() string {
	f.t.Helper()
	m := tokenForm.FindStringSubmatch(f.get("/me").body)
	if m == nil {
		f.t.Fatal("no form on /me")
	}
	return m[1]
}

// challenge asks for the challenge of a form.
func (f *forms) challenge(path string, fields url.Values) (kind, token string, options json.RawMessage) {
	f.t.Helper()
	fields = clone(fields)
	fields.Set("ask", "passkey")
	a := f.post(path, fields)
	var v map[string]struct {
		Options json.RawMessage `json:"options"`
		Token   string          `json:"token"`
	}
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		f.t.Fatalf("%s: %d %s", path, a.StatusCode, a.body)
	}
	for kind, c := range v {
		return kind, c.Token, c.Options
	}
	return "", "", nil
}

func clone(v url.Values) url.Values {
	c := url.Values{}
	for k, all := range v {
		c[k] = all
	}
	return c
}

// proved is the form with its passkey's answer.
func (f *forms) proved(path string, fields url.Values) url.Values {
	f.t.Helper()
	kind, token, options := f.challenge(path, fields)
	field, give := "assertion", f.key.Answer
	if kind == "create" {
		field, give = "made", f.key.Make
	}
	b, err := give(options)
	must(f.t, err)
	fields = clone(fields)
	fields.Set(field, fmt.Sprintf(`{"token":%q,"answer":%s}`, token, b))
	return fields
}

// pass sends the form with its passkey's answer.
func (f *forms) pass(path string, fields url.Values) answer {
	f.t.Helper()
	return f.post(path, f.proved(path, fields))
}

// enrolled is somebody with a passkey, signed in.
func enrolled(t *testing.T, w *town, name string) *forms {
	t.Helper()
	r, err := w.add(t.Context(), name, strings.ToUpper(name[:1])+name[1:], false)
	must(t, err)
	f := newForms(t, w)
	_, secret, _ := strings.Cut(r.Link, "#")
	if a := f.pass("/enrol", url.Values{"secret": {secret}, "name": {"key of " + name}}); a.StatusCode != http.StatusOK || !strings.Contains(a.body, "Hello") {
		t.Fatalf("%s: %d %s", name, a.StatusCode, a.body)
	}
	return f
}

// ask makes a request, and returns its path.
func (f *forms) ask(why string) string { return f.asks("db-admin", why) }

func (f *forms) asks(role, why string) string {
	f.t.Helper()
	a := f.pass("/ask/"+role, url.Values{"token": {f.token()}, "on": {"db1"}, "for": {"30m"}, "why": {why}, "ticket": {"INC-4120"}})
	if a.StatusCode != http.StatusOK || !strings.HasPrefix(a.Request.URL.Path, "/requests/") {
		f.t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	return a.Request.URL.Path
}

var digestForm = regexp.MustCompile(`name="digest" value="([0-9a-f]+)"`)

// yes is the form by which a request is approved.
func (f *forms) yes(path string) url.Values {
	f.t.Helper()
	m := digestForm.FindStringSubmatch(f.get(path).body)
	if m == nil {
		f.t.Fatal("nothing to approve at " + path)
	}
	return url.Values{"token": {f.token()}, "digest": {m[1]}}
}
