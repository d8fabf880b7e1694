package main

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// lend has somebody stand in for her, for some days.
func (f *forms) lend(standIn string, days int) answer {
	f.t.Helper()
	until := time.Now().UTC().AddDate(0, 0, days).Format("2006-01-02T15:04")
	a := f.pass("/away/begin", url.Values{"token": {f.token()}, "person": {standIn}, "until": {until}, "note": {"<b>skiing</b>"}})
	if a.StatusCode != http.StatusOK || !strings.Contains(a.body, standIn+" may approve in your place") || !strings.Contains(a.body, "for <strong>db-admin</strong>") {
		f.t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	return a
}

func TestWhileSomebodyIsAway(t *testing.T) {
	w := newTown(t)
	ana, cleo, ivo := enrolled(t, w, "ana"), enrolled(t, w, "cleo"), enrolled(t, w, "ivo")
	path := ana.ask("disk full")
	if a := ivo.get(path); a.StatusCode != http.StatusNotFound {
		t.Fatalf("before: %d", a.StatusCode)
	}
	if a := cleo.lend("ivo", 7); !strings.Contains(a.body, "not for db-root: nobody approves it in another&#39;s place") {
		t.Error(a.body)
	}
	page := ivo.get("/away").body
	if !strings.Contains(page, "&lt;b&gt;skiing&lt;/b&gt;") || !strings.Contains(page, "End that ivo approves in place of cleo") {
		t.Error(page)
	}
	if page := ivo.get(path).body; !strings.Contains(page, "You decide in place of <strong>cleo</strong>") {
		t.Error(page)
	}
	f := ivo.yes(path)
	if a := ivo.pass(path+"/approve", f); a.StatusCode != http.StatusConflict || !strings.Contains(a.body, "you would approve this in place of cleo") {
		t.Errorf("without saying so: %d", a.StatusCode)
	}
	f.Set("place", "cleo")
	if a := ivo.pass(path+"/approve", f); a.StatusCode != http.StatusOK || !strings.Contains(a.body, "<strong>ivo</strong>, in place of <strong>cleo</strong>,") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if q := shown(t, w, path); q.State != "issued" || q.Approvals[0].InPlaceOf != "cleo" {
		t.Errorf("%v", q)
	}
	if !strings.Contains(ivo.get(path).body, "<dt>From where</dt><dd><code>127.0.0.1</code>") {
		t.Error("its page does not say from where it was asked")
	}
	id := strings.Split(strings.Split(page, `name="id" value="`)[1], `"`)[0]
	if a := ana.post("/away/end", url.Values{"token": {ana.token()}, "id": {id}}); a.StatusCode != http.StatusNotFound {
		t.Errorf("ended by somebody else: %d", a.StatusCode)
	}
	if a := ivo.post("/away/end", url.Values{"token": {ivo.token()}, "id": {id}}); a.StatusCode != http.StatusOK || strings.Contains(a.body, "in place of cleo") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a := ivo.get(ana.ask("once more")); a.StatusCode != http.StatusNotFound {
		t.Errorf("afterwards: %d", a.StatusCode)
	}
}
