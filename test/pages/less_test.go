package main

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"curfew.internal/wire/api"
)

// shown is the request at a path.
func shown(t *testing.T, w *town, path string) *api.Request {
	t.Helper()
	q, err := w.ada.GetRequest(t.Context(), &api.GetRequestRequest{Id: strings.TrimPrefix(path, "/requests/")})
	must(t, err)
	return q
}

// What the command line can do with a request, its page can.
func TestTheFormsOfARequest(t *testing.T) {
	w := newTown(t)
	_, err := w.found(t.Context(), "db2", map[string]string{"tier": "db"})
	must(t, err)
	ana, ben := enrolled(t, w, "ana"), enrolled(t, w, "ben")
	ask := func(f url.Values) string {
		t.Helper()
		f.Set("token", ana.token())
		f.Set("for", "1h0m0s")
		f.Set("why", "disk full")
		a := ana.pass("/ask/db-admin", f)
		if a.StatusCode != http.StatusOK || !strings.HasPrefix(a.Request.URL.Path, "/requests/") {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		return a.Request.URL.Path
	}
	t.Run("by label, from a time on, approved for less", func(t *testing.T) {
		start := time.Now().UTC().Add(48 * time.Hour).Truncate(time.Minute)
		path := ask(url.Values{"on": {"db1"}, "labels": {"tier=db"}, "at": {start.Format("2006-01-02T15:04")}})
		if q := shown(t, w, path); !slices.Equal(q.Hosts, []string{"db1", "db2"}) || !q.Start.AsTime().Equal(start) {
			t.Fatalf("%v", q)
		}
		if page := ben.get(path).body; !strings.Contains(page, "Approve for less") || !strings.Contains(page, "or when it is approved, if that is later") {
			t.Error("the page shows neither")
		}
		f := ben.yes(path)
		f["some"], f["for"] = []string{"yes"}, []string{"15m0s"}
		if a := ben.post(path+"/approve", f); a.StatusCode != http.StatusBadRequest || !strings.Contains(a.body, "choose one of the hosts") {
			t.Errorf("no host: %d", a.StatusCode)
		}
		f["on"] = []string{"db2"}
		if a := ben.pass(path+"/approve", f); a.StatusCode != http.StatusOK || !strings.Contains(a.body, "It begins in") {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		q := shown(t, w, path)
		if len(q.HostStates) != 1 || q.HostStates[0].Host != "db2" || !q.NotBefore.AsTime().Equal(start) || !q.NotAfter.AsTime().Equal(start.Add(15*time.Minute)) {
			t.Errorf("%v", q)
		}
		if page := ana.get("/").body; !strings.Contains(page, "begins in 1 day") {
			t.Error("her first page does not say when it begins")
		}
	})
	t.Run("all hosts and no other length are all that was asked", func(t *testing.T) {
		path := ask(url.Values{"labels": {"tier=db"}})
		f := ben.yes(path)
		f["some"], f["on"], f["for"] = []string{"yes"}, []string{"db1", "db2"}, []string{""}
		ben.pass(path+"/approve", f)
		if q := shown(t, w, path); q.State != "issued" || q.Approvals[0].Duration != nil || len(q.Approvals[0].Hosts) > 0 {
			t.Errorf("%v", q)
		}
	})
	t.Run("an answer for less is none for more", func(t *testing.T) {
		path := ask(url.Values{"labels": {"tier=db"}})
		f := ben.yes(path)
		f["some"], f["on"] = []string{"yes"}, []string{"db1"}
		f = ben.proved(path+"/approve", f)
		f["on"] = []string{"db1", "db2"}
		if a := ben.post(path+"/approve", f); a.StatusCode != http.StatusForbidden || state(t, w, path) != "asked" {
			t.Errorf("%d, %s", a.StatusCode, state(t, w, path))
		}
	})
	t.Run("question, answer, withdrawn", func(t *testing.T) {
		path := ask(url.Values{"on": {"db1"}})
		ben.post(path+"/comment", url.Values{"token": {ben.token()}, "note": {"which <b>disk</b>?"}})
		if page := ana.get(path).body; !strings.Contains(page, "which &lt;b&gt;disk&lt;/b&gt;?") || strings.Contains(page, "<b>disk") {
			t.Error("she does not see the question")
		}
		ana.post(path+"/comment", url.Values{"token": {ana.token()}, "note": {"that of db1"}})
		if q := shown(t, w, path); len(q.Remarks) != 2 || q.Remarks[1].Person != "ana" {
			t.Errorf("%v", q.Remarks)
		}
		if a := ana.post(path+"/withdraw", url.Values{"token": {ana.token()}}); a.StatusCode != http.StatusOK || state(t, w, path) != "withdrawn" {
			t.Errorf("%d, %s", a.StatusCode, state(t, w, path))
		}
		if a := ben.post(path+"/comment", url.Values{"token": {ben.token()}, "note": {"too late"}}); a.StatusCode != http.StatusConflict {
			t.Errorf("said on a request that is over: %d", a.StatusCode)
		}
	})
}
