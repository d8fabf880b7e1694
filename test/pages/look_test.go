package main

import (
	_ "embed"
	"net/url"
	"strings"
	"testing"
)

//go:embed testdata/axe/axe.min.js
var axe string

// accessible looks for what keeps people from using the page.
func (v *tab) accessible(name string) {
	v.t.Helper()
	v.eval(axe + "\n;0")
	found, _ := v.eval(`axe.run(document).then(r => r.violations.map(x => x.id + ': ' + x.nodes.map(n => n.target.join(' ') + ' ' + n.failureSummary).join(' | ')).join('\n'))`).(string)
	if found != "" {
		v.t.Errorf("%s:\n%s", name, found)
	}
}

// at tries a page at each size and in both colours, and keeps pictures.
func (v *tab) at(name, path, text string) {
	v.t.Helper()
	for _, d := range []struct {
		suffix string
		device
	}{
		{"", desktop}, {"-phone", phone}, {"-dark", device{width: desktop.width, height: desktop.height, dark: true}},
	} {
		v.look(d.device)
		v.visit(path)
		v.sees(text)
		v.accessible(name + d.suffix)
		if wide, _ := v.eval("document.documentElement.scrollWidth > innerWidth").(bool); wide {
			v.t.Errorf("%s%s: wider than the screen", name, d.suffix)
		}
		v.shoot(name + d.suffix)
	}
	v.look(desktop)
}

const hostile = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>"'><svg onload=document.title='owned'>`

func TestEveryPage(t *testing.T) {
	w := newTown(t)
	_, err := w.found(t.Context(), "db2", map[string]string{"tier": "db"}, "sudo: PAM does not ask the agent")
	must(t, err)
	away, err := w.found(t.Context(), "web1", map[string]string{"tier": "web"})
	must(t, err)
	away.leave()
	pin, err := w.pin(t.Context())
	must(t, err)
	c := startChrome(t, pin)
	ana, ben, ida := invited(t, w, c, "ana", "Ana Ortiz", desktop), invited(t, w, c, "ben", "Ben Okafor", desktop), c.open(t, w.origin, desktop)
	dan, cleo := enrolled(t, w, "dan", false), enrolled(t, w, "cleo", false)

	// ana had the role before, and dan has it now.
	first := ana.ask(t, "Disk of db1 is 97 % full")
	if a := cleo.pass(first+"/approve", cleo.yes(first)); !strings.Contains(a.body, "granted") {
		t.Fatal(a.body)
	}
	grant := granted(t, w, first, "db1")
	must(t, w.hosts["db1"].run(grant, []string{"/usr/local/sbin/free-disk"}, []string{"/usr/bin/systemctl", "restart", "postgresql"}))
	ana.visit(first)
	ana.sees("/usr/local/sbin/free-disk")
	ana.at("request-granted", first, "in place")
	ana.click(".stop")
	ana.sees("the host signed for it")
	ana.at("request-over", first, "It is over")
	second := dan.ask("Postgres does not come back after the update", "INC-4120")
	cleo.pass(second+"/approve", cleo.yes(second))
	granted(t, w, second, "db1")
	open := ana.ask(t, "Disk of db1 is full again, and db2 follows")

	ben.at("request", open, "Disk of db1 is full again")
	ben.at("home-approver", "/", "These wait for your word")
	ana.at("home", "/", "Ask again")
	ana.at("ask", "/ask/db-admin", "What it gives you")
	ben.at("requests", "/requests", "All that you may see")
	ben.at("access", "/access", "dan")
	ana.at("me", "/me", "Where I am signed in")
	ana.at("missing", "/nothing", "no such page")

	r, err := w.add(t.Context(), "ida", "Ida Holm", true)
	must(t, err)
	ida.at("sign-in", "/sign-in", "Touch your passkey")
	ida.at("enrol", "/enrol", "Enrol a passkey")
	ida.at("link", "/link", "curfew pages")
	ida.must("Page.navigate", map[string]any{"url": r.Link})
	ida.sees("All that you could prove")
	ida.wait("the secret of the link", "document.querySelector('[name=secret]').value && !location.hash")
	ida.click("[data-passkey]")
	ida.sees("Hello")
	ida.at("fleet", "/fleet", "PAM does not ask the agent")
	ida.at("policy", "/policy?"+url.Values{"person": {"ana"}, "role": {"db-root"}, "on": {"web1"}}.Encode(), "may not ask for")
	ida.at("people", "/people", "Ana Ortiz")
	ida.write("[name=name]:not([type=hidden])", "eva")
	ida.click("form[action='/people/add'] [data-passkey]")
	ida.sees("On a command line")
	ida.accessible("invited")
	ida.shoot("invited")

	weight, _ := ana.eval(`(async () => { const all = [location.origin + '/', ...[...document.querySelectorAll('link[href], script[src], img[src]')].map(e => e.href || e.src)];
		let n = 0; for (const u of new Set(all)) n += (await (await fetch(u, {cache: 'reload'})).arrayBuffer()).byteLength; return n; })()`).(float64)
	if t.Logf("the first view has %.0f bytes", weight); weight == 0 || weight >= 100_000 {
		t.Errorf("the first view has %.0f bytes", weight)
	}
}

func TestHostileText(t *testing.T) {
	w := newTown(t)
	pin, err := w.pin(t.Context())
	must(t, err)
	c := startChrome(t, pin)
	ben := invited(t, w, c, "ben", hostile[:60], desktop)
	ana := enrolled(t, w, "ana", false)
	path := ana.ask(hostile, hostile[:90])
	for _, page := range []string{path, "/", "/requests"} {
		ben.visit(page)
		ben.sees(`<img src=x onerror="document.title='owned'">`)
		if n := ben.eval("document.querySelectorAll('img[src=x], main script, main svg').length").(float64); n > 0 {
			t.Errorf("%s: hostile text became %v elements", page, n)
		}
		if title := ben.eval("document.title").(string); strings.Contains(title, "owned") {
			t.Errorf("%s: it ran", page)
		}
	}
	// What a page's text cannot do, a script in its place could not either.
	ben.eval(`new Promise(done => { const s = document.createElement('script'); s.textContent = "document.title = 'owned'"; try { document.body.append(s) } catch {} setTimeout(done, 100) })`)
	if title := ben.eval("document.title").(string); title == "owned" {
		t.Error("an inline script ran")
	}
}

// ask makes a request on the page, and returns its path.
func (v *tab) ask(t *testing.T, why string) string {
	t.Helper()
	v.visit("/ask/db-admin")
	v.click("[name=on][value=db1]")
	v.write("[name=why]", why)
	v.write("[name=ticket]", "INC-4121")
	v.click("[data-passkey]")
	v.sees("waits for approval")
	return v.eval("location.pathname").(string)
}
