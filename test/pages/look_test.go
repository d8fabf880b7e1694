package main

import (
	_ "embed"
	"net/url"
	"strings"
	"testing"

	"curfew.internal/agent/doctor"
	"curfew.internal/wire/api"
)

//go:embed testdata/axe/axe.min.js
var axe string

// faults are what keeps people from using the page, as axe finds it; rules are
// some of axe's, or all of them.
func (v *tab) faults(rules ...string) string {
	v.t.Helper()
	options := "{}"
	if len(rules) > 0 {
		options = `{runOnly: ['` + strings.Join(rules, "', '") + `']}`
	}
	return v.eval(axe + `; axe.run(document, ` + options + `).then(r => r.violations.map(x => x.id + ': ' +
		x.nodes.map(n => n.target.join(' ') + ' ' + n.failureSummary).join(' | ')).join('\n'))`).(string)
}

func (v *tab) accessible(name string, rules ...string) {
	v.t.Helper()
	if found := v.faults(rules...); found != "" {
		v.t.Errorf("%s:\n%s", name, found)
	}
}

// wide reports whether one has to scroll sideways. The window of a phone grows
// with what is in it, and so says nothing.
func (v *tab) wide() bool {
	v.t.Helper()
	wide, _ := v.eval("document.documentElement.scrollWidth > document.documentElement.clientWidth").(bool)
	return wide
}

// at tries a page at each size and in both colours, and keeps pictures.
func (v *tab) at(name, path, text string) {
	v.t.Helper()
	v.visit(path)
	v.sees(text)
	for suffix, d := range map[string]device{"": desktop, "-phone": phone} {
		v.look(d)
		v.accessible(name + suffix)
		if v.wide() {
			v.t.Errorf("%s%s: wider than the screen", name, suffix)
		}
		v.shoot(name + suffix)
	}
	dark := desktop
	dark.dark = true
	v.look(dark)
	v.accessible(name+", dark", "color-contrast")
	v.look(desktop)
}

// granted waits until the grant of the request at a path is in place.
func granted(t *testing.T, w *town, path, on string) string {
	t.Helper()
	q, err := w.ada.GetRequest(t.Context(), &api.GetRequestRequest{Id: strings.TrimPrefix(path, "/requests/")})
	must(t, err)
	must(t, within(t.Context(), path+" on "+on, func() (bool, error) { return w.hosts[on].holds(q.Grant), nil }))
	return q.Grant
}

const hostile = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>"'><svg onload=document.title='owned'>`

func TestEveryPage(t *testing.T) {
	w := newTown(t)
	_, err := w.found(t.Context(), "db2", map[string]string{"tier": "db"}, unwiredSudo)
	must(t, err)
	away, err := w.found(t.Context(), "web1", map[string]string{"tier": "web"})
	must(t, err)
	away.leave()
	pin, err := w.pin(t.Context())
	must(t, err)
	c := startChrome(t, pin)
	ana, ben, ida := invited(t, w, c, "ana", "Ana Ortiz", desktop), invited(t, w, c, "ben", "Ben Okafor", desktop), c.open(t, w.origin, desktop)
	dan, cleo := enrolled(t, w, "dan"), enrolled(t, w, "cleo")

	// ana had the role before, and dan has it now.
	first := ana.ask("Disk of db1 is 97 % full")
	if a := cleo.pass(first+"/approve", cleo.yes(first)); !strings.Contains(a.body, "granted") {
		t.Fatal(a.body)
	}
	grant := granted(t, w, first, "db1")
	must(t, w.hosts["db1"].run(grant, []string{"/usr/local/sbin/free-disk"}, []string{"/usr/bin/systemctl", "restart", "postgresql"}))
	ana.visit(first)
	ana.sees("/usr/local/sbin/free-disk")
	ana.at("request-granted", first, "in place")
	ana.click(".stop")
	ana.sees("the host signed that nothing is left")
	ana.at("request-over", first, "It is over")
	second := dan.ask("Postgres does not come back after the update")
	cleo.pass(second+"/approve", cleo.yes(second))
	film, err := w.hosts["db1"].reel(granted(t, w, second, "db1"))
	must(t, err)
	must(t, film.shows(t.Context(), 0, "\x1b[1;32mdan@db1\x1b[0m:~$ sudo /usr/local/sbin/free-disk\r\n", "7.4G freed\r\n"))
	open := ana.ask("Disk of db1 is full again, and db2 follows")

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
	ida.enrol(r.Link)
	ida.at("terminals", "/terminals", "goes on")
	ida.at("terminal", "/terminals/db1/"+film.next.Terminal, "7.4G freed")
	ida.at("terminal-text", "/terminals/db1/"+film.next.Terminal+"/text", "7.4G freed")
	ida.at("fleet", "/fleet", "curfew-agent install")
	ida.at("policy", "/policy?"+url.Values{"person": {"ana"}, "role": {"db-root"}, "on": {"web1"}, "ticket": {"INC-1"}, "from": {"::ffff:10.0.0.7"}}.Encode(), "may not ask for")
	ida.at("people", "/people", "Ana Ortiz")
	cleo.lend("ida", 7)
	ida.at("away", "/away", "ida in place of cleo")
	ida.at("request-in-place", open, "You decide in place of cleo")
	ida.visit("/people")
	ida.write("[name=name]:not([type=hidden])", "eva")
	ida.write("form[action='/people/add'] [name=email]", "eva@example.com")
	ida.click("form[action='/people/add'] [data-passkey]")
	ida.sees("On a command line")
	ida.accessible("invited")
	ida.shoot("invited")
	ida.visit("/people")
	ida.sees("eva@example.com")
	ida.click("[aria-label='Change eva']")
	ida.eval(`document.querySelector("form:has([name=name][value=eva]) [name=email]").value = ''`)
	ida.write("form:has([name=name][value=eva]) [name=email]", "eva+sre@example.com")
	ida.click("form:has([name=name][value=eva])[action='/people/email'] [data-passkey]")
	ida.sees("eva+sre@example.com")

	// What has a fault is found to have one.
	ida.eval(`document.querySelector('main').append(Object.assign(document.createElement('img'), {src: '/nothing'}))`)
	if found := ida.faults(); !strings.HasPrefix(found, "image-alt: ") {
		t.Errorf("an image without a text: %q", found)
	}
	ida.look(phone)
	ida.eval(`document.querySelector('main').append(Object.assign(document.createElement('pre'), {textContent: 'x'.repeat(900)}))
		document.querySelector('main > pre').style.overflow = 'visible'`)
	if !ida.wide() {
		t.Error("what is wider than a phone is not found to be")
	}

	ana.visit("/")
	painted, _ := ana.eval(`performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0`).(float64)
	t.Logf("the first page shows something %.0f ms after it is asked for", painted)
	weight, _ := ana.eval(`(async () => { const all = [location.origin + '/', ...[...document.querySelectorAll('link[href], script[src], img[src]')].map(e => e.href || e.src)];
		let n = 0; for (const u of new Set(all)) n += (await (await fetch(u, {cache: 'reload'})).arrayBuffer()).byteLength; return n; })()`).(float64)
	if t.Logf("the first view has %.0f bytes", weight); weight == 0 || weight >= 100_000 {
		t.Errorf("the first view has %.0f bytes", weight)
	}
}

func TestHostileText(t *testing.T) {
	w := newTown(t)
	_, err := w.found(t.Context(), "db2", map[string]string{"tier": "web"}, doctor.Finding{Check: "names", Severity: doctor.Broken, Says: hostile, Mend: hostile})
	must(t, err)
	pin, err := w.pin(t.Context())
	must(t, err)
	c := startChrome(t, pin)
	r, err := w.add(t.Context(), "ben", hostile[:60], true)
	must(t, err)
	ben := c.open(t, w.origin, desktop)
	ben.enrol(r.Link)
	ana := enrolled(t, w, "ana")
	path := ana.pass("/ask/db-admin", url.Values{"token": {ana.token()}, "on": {"db1"}, "for": {"1h"}, "why": {hostile}, "ticket": {hostile[:90]}}).Request.URL.Path
	ana.post(path+"/comment", url.Values{"token": {ana.token()}, "note": {hostile}})
	for _, page := range []string{path, "/", "/requests", "/fleet"} {
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
	ben.eval(`(() => { try { const s = document.createElement('script'); s.textContent = "document.title = 'owned'"; document.body.append(s) } catch {} })()`)
	if title := ben.eval("document.title").(string); title == "owned" {
		t.Error("an inline script ran")
	}
}
