package web

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// A page is what a template is filled with.
type page struct {
	Name  string // of the template
	Title string
	Data  any
	Error string
	Again bool // it loads itself anew at once
	Still bool // it does not change by itself

	// Of the visitor; the zero values for nobody.
	Fleet   string
	Me      *api.Person
	Path    string
	Token   string
	Waits   int // requests that wait for her word
	Passkey bool
	TOTP    bool
}

// A view is a page, or why there is none.
type view func(ctx context.Context, r *http.Request) (page, error)

// A deed changes something, and says where its result is seen.
type deed func(ctx context.Context, r *http.Request) (outcome, error)

// outcome is what came of a deed: a place to look at, a page, or the next part
// of a ceremony with a passkey.
type outcome struct {
	to     string
	page   *page
	get    *roster.Ceremony
	create *roster.Ceremony
}

//go:embed pages/*.html
var pages embed.FS

var templates = parse()

func parse() map[string]*template.Template {
	base := template.Must(template.New("").Funcs(template.FuncMap{
		"asset": asset, "stamp": stamp, "span": span, "words": words, "state": stateWords, "proof": proofWords, "host": hostWords, "access": accessWords, "missing": missing, "hex": func(b []byte) string { return fmt.Sprintf("%x", b) },
		"dict": dict, "next": func(n int) int { return n + 1 }, "join": strings.Join, "some": roster.Some, "lines": func(b []byte) []string { return strings.Split(strings.TrimRight(string(b), "\n"), "\n") },
	}).ParseFS(pages, "pages/layout.html", "pages/parts.html"))
	all := map[string]*template.Template{}
	for _, name := range []string{
		"sign-in", "enrol", "link", "again", "error", "home", "ask", "requests", "request", "access", "fleet", "policy", "people", "invited", "me",
		"away", "lent", "terminals", "terminal", "terminal-text", "account", "line", "landed",
	} {
		all[name] = template.Must(template.Must(base.Clone()).ParseFS(pages, "pages/"+name+".html"))
	}
	return all
}

// dict passes several values to a part of a page.
func dict(pairs ...any) map[string]any {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[fmt.Sprint(pairs[i])] = pairs[i+1]
	}
	return m
}

// write sends a whole page.
func (s *Server) write(w http.ResponseWriter, r *http.Request, status int, p page) {
	p.Fleet = s.Fleet
	var b bytes.Buffer
	if err := templates[p.Name].ExecuteTemplate(&b, "layout", p); err != nil {
		s.Log.ErrorContext(r.Context(), "page cannot be written", "page", p.Name, "cause", err)
		http.Error(w, "something went wrong on the server: its log says what", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the caller hung up
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the caller hung up
}

func wantsJSON(r *http.Request) bool { return r.PostFormValue("ask") != "" }

// ceremony hands the browser what its passkey is to do, or says why not.
func (s *Server) ceremony(w http.ResponseWriter, r *http.Request, what string, c roster.Ceremony, err error) {
	if err != nil {
		status, text := s.refusal(r.Context(), r, err)
		writeJSON(w, status, map[string]string{"error": text})
		return
	}
	writeJSON(w, http.StatusOK, map[string]roster.Ceremony{what: c})
}

// framed puts around a page what every page of a visitor shows.
func (s *Server) framed(v visitor, r *http.Request, p page) (page, error) {
	me, err := s.API.Whoami(v.ctx(), &api.WhoamiRequest{})
	if err != nil {
		return p, err
	}
	waiting, err := s.API.ListRequests(v.ctx(), &api.ListRequestsRequest{ForApproval: true})
	if err != nil {
		return p, err
	}
	own, err := s.API.Own(v.ctx())
	if err != nil {
		return p, err
	}
	p.Fleet, p.Me, p.Path, p.Token, p.Waits, p.TOTP = s.Fleet, me.Person, r.URL.Path, v.token(), len(waiting.Requests), own.TOTP
	p.Passkey = len(own.Passkeys) > 0
	return p, nil
}

// page answers with a view: once, or as long as the browser looks at it.
func (s *Server) page(f view) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := s.visitor(r)
		if err == nil && r.Header.Get("Accept") == "text/event-stream" {
			s.follow(w, r, v, f)
			return
		}
		if err == nil {
			err = s.show(w, r, v, f, nil)
		}
		if err != nil {
			s.fail(w, r, err)
		}
	}
}

// show writes a view, with what was refused on it.
func (s *Server) show(w http.ResponseWriter, r *http.Request, v visitor, f view, refused error) error {
	p, err := f(v.ctx(), r)
	status := http.StatusOK
	if refused != nil {
		status, p.Error = s.refusal(v.ctx(), r, refused)
	}
	if refusal := (*roster.Refusal)(nil); errors.As(err, &refusal) && refusal.Kind != roster.Unproven {
		// Refused, but within the frame, so that she can go elsewhere.
		status, p = statuses[refusal.Kind], page{Name: "error", Title: http.StatusText(statuses[refusal.Kind]), Error: refusal.Text}
	} else if err != nil {
		return err
	}
	if p, err = s.framed(v, r, p); err != nil {
		return err
	}
	s.write(w, r, status, p)
	return nil
}

// act does a deed. What it refuses is said on the view that its form is on.
func (s *Server) act(f view, d deed) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := s.visitor(r)
		if err == nil {
			err = v.checkToken(r)
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		o, err := d(v.ctx(), r)
		switch {
		case err != nil && wantsJSON(r):
			s.fail(w, r, err)
		case err != nil:
			if err := s.show(w, r, v, f, err); err != nil {
				s.fail(w, r, err)
			}
		case o.get != nil:
			s.ceremony(w, r, "get", *o.get, nil)
		case o.create != nil:
			s.ceremony(w, r, "create", *o.create, nil)
		case o.page != nil:
			err := s.show(w, r, v, func(context.Context, *http.Request) (page, error) { return *o.page, nil }, nil)
			if err != nil {
				s.fail(w, r, err)
			}
		default:
			http.Redirect(w, r, o.to, http.StatusSeeOther)
		}
	}
}

// challenged answers a form that asks for its passkey's challenge. The call is
// made, and proved, when the form comes again with the answer.
func (s *Server) challenged(ctx context.Context, r *http.Request, call proto.Message) (outcome, bool, error) {
	if !wantsJSON(r) {
		return outcome{}, false, nil
	}
	c, err := s.API.Challenge(ctx, call)
	return outcome{get: &c}, true, err
}

// writeWithin is how long a browser may take to read one change of a page.
const writeWithin = 10 * time.Second

// follow sends the page's content whenever it has changed, until the visitor
// leaves or her session is over.
func (s *Server) follow(w http.ResponseWriter, r *http.Request, v visitor, f view) {
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	var last []byte
	send := func(event string, text []byte) error {
		if err := rc.SetWriteDeadline(s.Clock.Now().Wall.Add(writeWithin)); err != nil {
			return err
		}
		line, err := json.Marshal(string(text))
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, line); err != nil {
			return err
		}
		return rc.Flush()
	}
	err := s.API.Follow(v.ctx(), func() (bool, error) {
		p, err := f(v.ctx(), r)
		if err == nil {
			p, err = s.framed(v, r, p)
		}
		if err != nil {
			return true, err
		}
		var b bytes.Buffer
		if err := templates[p.Name].ExecuteTemplate(&b, "body", p); err != nil {
			return true, err
		}
		if bytes.Equal(last, b.Bytes()) {
			return false, nil
		}
		last = b.Bytes()
		return false, send("page", last)
	})
	// What is too much now is asked for again: loaded again, it would be at once.
	if refusal := (*roster.Refusal)(nil); errors.As(err, &refusal) && refusal.Kind != roster.TooMuch {
		_ = send("over", nil) // she may have left
	}
}
