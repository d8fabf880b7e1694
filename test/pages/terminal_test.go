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

func TestPlayer(t *testing.T) {
	town := newTown(t)
	pin, err := town.pin(t.Context())
	must(t, err)
	c := startChrome(t, pin)
	ana := enrolled(t, town, "ana")
	ben := invited(t, town, c, "ben", "Ben Okafor", device{width: 1100, height: 800, dark: true})
	path := ana.ask("the disk of db1 is full")
	ben.visit(path)
	ben.sees("What her terminals show is recorded")
	ben.click(".deeds [data-passkey]")
	ben.sees("in place: it can be used")
	id := granted(t, town, path, "db1")
	r, err := town.hosts["db1"].reel(id)
	must(t, err)
	must(t, r.shows(t.Context(), 0, "\x1b[31mred\x1b[0m first\r\n", evil, "\r\n\x1b[1;44mdb1:~$\x1b[0m "))
	ben.visit("/terminals?id=" + id)
	ben.sees("goes on")
	ben.click(".cover")
	ben.wait("the player to go on by itself", "document.querySelector('.screen')?.innerText.includes('db1:~$')")
	if got := ben.eval(`[document.querySelectorAll('#player img').length, document.querySelector('.screen').innerText.includes('<img src=x'),
		document.title.includes('title'), getComputedStyle(document.querySelector('.screen .f1')).color, document.querySelector('.screen div').textContent].join('|')`); got != "0|true|false|rgb(255, 107, 100)|red first" {
		t.Errorf("%v", got)
	}
	must(t, r.shows(t.Context(), 5, "df -h\r\n", "later\r\n"))
	ben.wait("what comes later, without a reload", "document.querySelector('.screen').innerText.includes('later')")
	ben.eval("window.first = document.getElementById('player'), 0")
	ben.write("#end [name=note]", "wrong disk")
	ben.click("#end .stop")
	ben.wait("the player after the form was sent", "document.getElementById('player') !== window.first && document.querySelector('.screen')?.innerText.includes('later')")
	must(t, r.ends(t.Context(), "ended by ben, who watched it"))
	ben.sees("It ended: ended by ben")

	// By keyboard: to the start, and on from there.
	ben.visit("/terminals/db1/" + r.next.Terminal)
	ben.wait("all of it to be read", "document.querySelector('.screen')?.innerText.includes('red first')")
	ben.eval("document.querySelector('.scroll').focus()")
	must(t, within(t.Context(), "its end", func() (bool, error) {
		ben.press("End", 35) // of what has been read by now
		return ben.eval("document.querySelector('.screen').innerText.includes('later')").(bool), nil
	}))
	ben.press("Home", 36)
	ben.wait("its start", "!document.querySelector('.screen').innerText.includes('later')")
	ben.press("+", 187)
	ben.press(" ", 32)
	ben.wait("it to play to its end", "document.querySelector('.screen').innerText.includes('later') && document.querySelector('[data-do=play]').textContent === 'Play'")
	ben.visit("/terminals/db1/" + r.next.Terminal + "/text")
	ben.sees("df -h")
	looked(t, town, r.next.Terminal, 2, 2)
}

// looked makes sure that the record has who looked, once for each look.
func looked(t *testing.T, town *town, terminal string, watched, replayed int) {
	t.Helper()
	r, err := town.ada.SearchEvents(t.Context(), &api.SearchEventsRequest{Kind: "admin", Words: terminal})
	must(t, err)
	var told []string
	for _, e := range r.Events {
		told = append(told, e.Person+" "+e.Text)
	}
	all := strings.Join(told, "\n")
	if strings.Count(all, "watches terminal") != watched || strings.Count(all, "replayed terminal") != replayed || strings.Contains(all, "dan") {
		t.Errorf("watched %d and replayed %d times: %s", watched, replayed, all)
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
	looked(t, town, r.next.Terminal, 0, 3)
}
