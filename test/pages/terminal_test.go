package main

import (
	"bufio"
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"curfew.internal/wire/api"
)

// evil is what a program may show to whoever looks at it later.
const evil = "\x1b]0;title\x07\x1b[6n<img src=x onerror=alert(1)>\u202e"

// looked makes sure that the record has who looked, once for each look.
func looked(t *testing.T, town *town, terminal string, replayed int) {
	t.Helper()
	r, err := town.ada.SearchEvents(t.Context(), &api.SearchEventsRequest{Kind: "admin", Words: terminal})
	must(t, err)
	var told []string
	for _, e := range r.Events {
		told = append(told, e.Person+" "+e.Text)
	}
	all := strings.Join(told, "\n")
	if strings.Count(all, "replayed terminal") != replayed || strings.Contains(all, "dan") {
		t.Errorf("%s", all)
	}
}

// Without a script, and for whoever reads what the player reads.
func TestTerminalPages(t *testing.T) {
	town, err := settle(t.Context(), t.TempDir(), "", t.Output())
	must(t, err)
	t.Cleanup(func() { must(t, town.leave()) })
	db1, err := town.found(t.Context(), "db1", map[string]string{"tier": "db"})
	must(t, err)
	ana, ben, dan := enrolled(t, town, "ana"), enrolled(t, town, "ben"), enrolled(t, town, "dan")
	path := ana.ask("the disk of db1 is full")
	if a := ben.get(path); !strings.Contains(a.body, "What her terminals show is recorded") {
		t.Errorf("the request's page: %s", a.body)
	}
	if a := ben.pass(path+"/approve", ben.yes(path)); a.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	var q *api.Request
	must(t, within(t.Context(), "the grant", func() (bool, error) {
		q, err = town.ada.GetRequest(t.Context(), &api.GetRequestRequest{Id: strings.TrimPrefix(path, "/requests/")})
		return err == nil && db1.holds(q.Grant), err
	}))
	r, err := db1.reel(q.Grant)
	must(t, err)
	must(t, r.shows(t.Context(), 0, "\x1b[31mred\x1b[0m first\r\n", evil, "\r\nsecond\r\n"))
	must(t, r.shows(t.Context(), 5, "later\r\n"))
	must(t, r.ends(t.Context(), "the shell ended"))

	at := "/terminals/db1/" + r.next.Terminal
	for page, want := range map[string]string{
		"/terminals?id=" + q.Grant: at, "/terminals?words=SECOND": "<code>second</code>", "/terminals?words=nowhere": "No recording", path: "/terminals?id=" + q.Grant,
		at: `data-frames="` + at + `/frames"`, at + "/text": "later",
	} {
		if a := ben.get(page); a.StatusCode != http.StatusOK || !strings.Contains(a.body, want) || strings.Contains(a.body, "<img src=x") {
			t.Errorf("%s lacks %s: %d %s", page, want, a.StatusCode, a.body)
		}
		if a := dan.get(page); strings.Contains(a.body, "later") || strings.Contains(a.body, "<code>second") || strings.Contains(a.body, `href="`+at) {
			t.Errorf("%s for dan, who has nothing to do with it: %d %s", page, a.StatusCode, a.body)
		}
	}
	if a := dan.get(at + "/frames"); strings.Contains(a.body, "later") || !strings.Contains(a.body, "not yours to see") {
		t.Errorf("frames for dan: %s", a.body)
	}
	var shown []string
	end := ""
	for s := bufio.NewScanner(strings.NewReader(ben.get(at + "/frames").body)); s.Scan(); {
		var f struct {
			Rows map[string][][2]string `json:"r"`
			End  string                 `json:"end"`
		}
		must(t, json.Unmarshal(s.Bytes(), &f))
		for _, row := range f.Rows {
			for _, span := range row {
				shown = append(shown, strings.Join(span[:], "/"))
			}
		}
		end += f.End
	}
	if got := strings.Join(shown, " "); got != "red/f1  first/ <img src=x onerror=alert(1)>/ second/ later/" || end != "the shell ended" {
		t.Errorf("%q, end %q", got, end)
	}
	// A file that was changed on the server's disk is not played.
	must(t, filepath.WalkDir(filepath.Join(town.dir, "data", "terminals"), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.WriteFile(name, []byte("something else"), 0o600)
	}))
	if a := ben.get(at + "/frames"); strings.Contains(a.body, "later") || !strings.Contains(a.body, "ALERT: the recording is not what its host signed") {
		t.Errorf("changed: %s", a.body)
	}
	looked(t, town, r.next.Terminal, 3)
}
