package main

import (
	"bufio"
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"curfew.internal/controlplane"
	"curfew.internal/controlplane/identity"
	"curfew.internal/controlplane/scim"
	"curfew.internal/test/provider"
	"curfew.internal/wire/api"
)

// withProvider is a town whose people sign in at a real provider, where ana is
// known and sits at every browser.
func withProvider(t *testing.T, alter ...func(*controlplane.Config)) (*town, *provider.Provider) {
	t.Helper()
	var p *provider.Provider
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte(provider.Secret), 0o600))
	w, err := settle(t.Context(), t.TempDir(), "", t.Output(), func(c *controlplane.Config) {
		p = provider.Start(t, c.Web.Origin+"/sign-in/back")
		c.OIDC = &identity.ProviderConfig{Name: "Example", Issuer: p.URL, ClientID: provider.ClientID, ClientSecretFile: secret, CAFile: p.CAFile, Domain: "example.com"}
		for _, f := range alter {
			f(c)
		}
	})
	must(t, err)
	t.Cleanup(func() { must(t, w.leave()) })
	_, err = w.pin(t.Context()) // the pages are up
	must(t, err)
	p.Has("sub-ana", "ana@example.com", nil)
	p.As("ana@example.com")
	return w, p
}

// A role whose people the provider keeps.
const ofSRE = `groups: {sre: {directory: SRE team}}
roles:
  db-sre: {description: Look at a database host, hosts: {tier: db}, commands: [/usr/bin/systemctl restart cron], max_duration: 1h, approval: {by: [ben, cleo]}}
eligible:
  - {role: db-sre, people: [group:sre]}
`

func TestGroupOfTheProviderMayAsk(t *testing.T) {
	w, p := withProvider(t, func(c *controlplane.Config) {
		c.OIDC.GroupsClaim = "groups"
		must(t, os.WriteFile(filepath.Join(c.PolicyDir, "sre.yaml"), []byte(ofSRE), 0o600))
	})
	f := ownAccount(t, w, enrolled(t, w, "ana"))
	if a := f.get("/"); strings.Contains(a.body, "db-sre") || !strings.Contains(a.body, "db-admin") {
		t.Errorf("in no group yet: %s", a.body)
	}
	for _, in := range []bool{true, false} {
		groups := []string{"everybody"}
		if in {
			groups = append(groups, "SRE team")
		}
		p.Has("sub-ana", "ana@example.com", map[string]any{"groups": groups})
		f.get("/sign-in/away")
		must(t, within(t.Context(), "the group counts", func() (bool, error) { return strings.Contains(f.get("/").body, "db-sre") == in, nil }))
	}
}

func TestDirectoryEndsAPerson(t *testing.T) {
	const token = "a token that nobody would guess, ever"
	w, err := settle(t.Context(), t.TempDir(), "", t.Output(), func(c *controlplane.Config) {
		file := filepath.Join(t.TempDir(), "token")
		must(t, os.WriteFile(file, []byte(token), 0o600))
		c.SCIM = &scim.Config{TokenFile: file, Domain: "example.com"}
		must(t, os.WriteFile(filepath.Join(c.PolicyDir, "sre.yaml"), []byte(ofSRE), 0o600))
	})
	must(t, err)
	t.Cleanup(func() { must(t, w.leave()) })
	_, err = w.pin(t.Context()) // the pages are up
	must(t, err)
	_, err = w.found(t.Context(), "db1", map[string]string{"tier": "db"})
	must(t, err)
	call := func(method, path, body string) map[string]any {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, w.origin+"/scim/v2"+path, strings.NewReader(body))
		must(t, err)
		r.Header.Set("Authorization", "Bearer "+token)
		a := newForms(t, w).do(r)
		v := map[string]any{}
		if err := json.Unmarshal([]byte(a.body), &v); err != nil || a.StatusCode >= 300 {
			t.Fatalf("%s %s: %d %s", method, path, a.StatusCode, a.body)
		}
		return v
	}
	ana := enrolled(t, w, "ana")
	path := ana.ask("disk full")
	id := call("POST", "/Users", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"ana@example.com","displayName":"Ana Ortiz"}`)["id"].(string)
	call("POST", "/Groups", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"],"displayName":"SRE team","members":[{"value":"`+id+`"}]}`)
	must(t, within(t.Context(), "the group counts", func() (bool, error) { return strings.Contains(ana.get("/").body, "db-sre"), nil }))

	call("PATCH", "/Users/"+id, `{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":[{"op":"replace","path":"active","value":false}]}`)
	if a := ana.get("/"); a.Request.URL.Path != "/sign-in" || state(t, w, path) == "asked" {
		t.Errorf("at %s, and her request is %s", a.Request.URL.Path, state(t, w, path))
	}
}

var (
	passForm = regexp.MustCompile(`name="pass" value="([^"]+)"`)
	landing  = regexp.MustCompile(`content="0;url=([^"]+)"`)
	fleetOf  = regexp.MustCompile(`curfew login (curfew-fleet-[A-Za-z0-9_-]+)`)
)

// find is what a page says, as text.
func find(t *testing.T, re *regexp.Regexp, a answer) string {
	t.Helper()
	m := re.FindStringSubmatch(a.body)
	if m == nil {
		t.Fatalf("%s: %d %s", re, a.StatusCode, a.body)
	}
	return html.UnescapeString(m[1])
}

// ownAccount has a browser of ana's prove that the account is hers.
func ownAccount(t *testing.T, w *town, ana *forms) *forms {
	t.Helper()
	f := newForms(t, w)
	f.key = ana.key
	a := f.get("/sign-in/away?to=/access")
	if !strings.Contains(a.body, "Is this you?") {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	if a = f.pass("/sign-in/account", url.Values{"pass": {find(t, passForm, a)}}); a.Request.URL.Path != "/access" {
		t.Fatalf("at %s: %s", a.Request.URL, a.body)
	}
	return f
}

func TestBrowserSignsInAtTheProvider(t *testing.T) {
	w, p := withProvider(t)
	ana, eve := enrolled(t, w, "ana"), newForms(t, w)
	if a := eve.get("/sign-in"); !strings.Contains(a.body, "at Example") || !strings.Contains(a.body, "/sign-in/away?to=%2f") {
		t.Errorf("the page to sign in does not offer it: %s", a.body)
	}
	ownAccount(t, w, ana)
	f := newForms(t, w)
	if a := f.get("/sign-in/away?to=/access"); a.Request.URL.Path != "/access" || !strings.Contains(a.body, "ana") {
		t.Fatalf("at %s: %s", a.Request.URL, a.body)
	}

	p.Has("sub-eve", "eve@example.com", nil)
	p.As("eve@example.com")
	if a := eve.get("/sign-in/away"); a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.body, "ask an admin to add you") {
		t.Errorf("somebody unknown: %d %s", a.StatusCode, a.body)
	}
	if a := eve.get("/sign-in/back?code=x&state=x"); a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.body, "began in another browser") {
		t.Errorf("who was not sent there: %d %s", a.StatusCode, a.body)
	}
	p.As("ana@example.com")
	_, err := w.ada.DisablePerson(t.Context(), &api.DisablePersonRequest{Name: "ana"})
	must(t, err)
	if a := f.get("/access"); a.Request.URL.Path != "/sign-in" {
		t.Errorf("disabled, and still at %s", a.Request.URL)
	}
	if a := f.get("/sign-in/away"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("disabled, and let in: %d at %s", a.StatusCode, a.Request.URL)
	}
}

// curfew is the program, built, with a home of its own.
func curfew(t *testing.T) func(args ...string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "curfew"), "curfew.internal/cmd/curfew")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return func(args ...string) *exec.Cmd {
		c := exec.CommandContext(t.Context(), filepath.Join(dir, "curfew"), args...)
		c.Env = append(os.Environ(), "CURFEW_HOME="+filepath.Join(dir, "home"), "BROWSER=true")
		return c
	}
}

// sentAway starts a login, and has a browser go where that sends it. What the
// page is to be answered with is returned, and what the login goes on to say.
func sentAway(t *testing.T, w *town, f *forms, login *exec.Cmd) (pass url.Values, said *bufio.Scanner) {
	t.Helper()
	errs, err := login.StderrPipe()
	must(t, err)
	must(t, login.Start())
	said = bufio.NewScanner(errs)
	var at, check string
	for check == "" && said.Scan() {
		if strings.HasPrefix(said.Text(), "https://") {
			at = said.Text()
		}
		if rest, ok := strings.CutPrefix(said.Text(), "It has to show "); ok {
			check, _, _ = strings.Cut(rest, " ")
		}
	}
	a := f.get(strings.TrimPrefix(at, w.origin))
	if check == "" || !strings.Contains(a.body, check) {
		t.Fatalf("the page does not show %q: %s", check, a.body)
	}
	return url.Values{"pass": {find(t, passForm, a)}}, said
}

// byCode enrols a computer with the code that her page makes for it, and with
// the first code of a second factor.
func byCode(t *testing.T, f *forms, run func(...string) *exec.Cmd) {
	t.Helper()
	made := f.pass("/me/device", url.Values{"token": {f.token()}})
	login := run("login", find(t, regexp.MustCompile(`(curfew-invite-[A-Za-z0-9_-]+)`), made))
	in, err := login.StdinPipe()
	must(t, err)
	out, err := login.StdoutPipe()
	must(t, err)
	must(t, login.Start())
	shown := bufio.NewScanner(out)
	shown.Scan()
	u, err := url.Parse(shown.Text())
	must(t, err)
	code, err := totp.GenerateCode(u.Query().Get("secret"), time.Now())
	must(t, err)
	_, err = in.Write([]byte(code + "\n"))
	must(t, err)
	for shown.Scan() { // to its end
	}
	must(t, login.Wait())
}

// TestWhatItsPageSaysSignsIn types the commands of docs/sign-in.md, in their
// order.
func TestWhatItsPageSaysSignsIn(t *testing.T) {
	page, err := os.ReadFile("../../docs/sign-in.md")
	must(t, err)
	typed := regexp.MustCompile(`(?m)^curfew (login.*?) *(?:#.*)?$`).FindAllStringSubmatch(string(page), -1)
	if len(typed) != 3 {
		t.Fatalf("the page has other commands: %q", typed)
	}
	w, _ := withProvider(t)
	ana := enrolled(t, w, "ana")
	f, run := ownAccount(t, w, ana), curfew(t)
	for i, line := range typed {
		if i == 2 { // on a computer that was enrolled with a code
			run = curfew(t)
			byCode(t, ana, run)
		}
		login := run(strings.Fields(strings.ReplaceAll(line[1], "curfew-fleet-...", find(t, fleetOf, newForms(t, w).get("/sign-in"))))...)
		pass, said := sentAway(t, w, f, login)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, find(t, landing, f.post("/sign-in/line", pass)), nil)
		must(t, err)
		if a := f.do(r); a.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s", line[0], a.StatusCode, a.body)
		}
		for said.Scan() { // to its end
		}
		must(t, login.Wait())
		who, err := run("whoami").Output()
		if must(t, err); !strings.HasPrefix(string(who), "ana (Ana) of harbour") {
			t.Errorf("%s: %s", line[0], who)
		}
	}
}

func TestCommandLineSignsInAtTheProvider(t *testing.T) {
	w, _ := withProvider(t)
	f := ownAccount(t, w, enrolled(t, w, "ana"))
	run := curfew(t)

	login := run("login", find(t, fleetOf, newForms(t, w).get("/sign-in")))
	pass, lines := sentAway(t, w, f, login)
	to, err := url.Parse(find(t, landing, f.post("/sign-in/line", pass)))
	must(t, err)
	if a := f.post("/sign-in/line", pass); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("signed in twice by one page: %d", a.StatusCode)
	}
	forged := *to
	forged.RawQuery = url.Values{"pass": to.Query()["pass"], "state": {"guessed"}}.Encode()
	for _, u := range []*url.URL{&forged, to} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.String(), nil)
		must(t, err)
		if a := f.do(r); (a.StatusCode == http.StatusOK) != (u == to) {
			t.Errorf("%s: %d", u, a.StatusCode)
		}
	}
	for lines.Scan() { // to its end
	}
	must(t, login.Wait())

	who, err := run("whoami").Output()
	if must(t, err); !strings.HasPrefix(string(who), "ana (Ana) of harbour") {
		t.Errorf("%s", who)
	}
	session := regexp.MustCompile(`name="session" value="(s-[a-z0-9]+)"`)
	if a := f.post("/me/end", url.Values{"token": {f.token()}, "session": {find(t, session, f.get("/me"))}}); a.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	if out, err := run("whoami").CombinedOutput(); err == nil || !strings.Contains(string(out), "the session is over") {
		t.Errorf("after its end: %s", out)
	}
}

// A command line without a browser is brought the pass by its person.
func TestPassIsPasted(t *testing.T) {
	w, _ := withProvider(t)
	f := ownAccount(t, w, enrolled(t, w, "ana"))
	login := curfew(t)("login", "--paste", find(t, fleetOf, newForms(t, w).get("/sign-in")))
	in, err := login.StdinPipe()
	must(t, err)
	said, err := login.StderrPipe()
	must(t, err)
	must(t, login.Start())
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		if at, ok := strings.CutPrefix(lines.Text(), w.origin); ok {
			a := f.post("/sign-in/line", url.Values{"pass": {find(t, passForm, f.get(at))}})
			_, err := in.Write([]byte(find(t, regexp.MustCompile(`id="pass">([^<]+)<`), a) + "\n"))
			must(t, err)
		}
	}
	must(t, login.Wait())
}
