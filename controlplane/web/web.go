// Package web shows the control plane to people in a browser.
//
// It asks the API for everything, as the person whose browser it is, and
// decides nothing about who may do what: what the API refuses, a page refuses
// in the same words.
package web

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"

	"google.golang.org/protobuf/proto"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
)

// API is what people's programs call, and what pages need besides.
type API interface {
	apiconnect.CurfewHandler
	Pages
}

// Pages are the calls that only pages make.
type Pages interface {
	// As is a context in which calls are made by the person whose browser
	// holds the secret.
	As(ctx context.Context, secret string) (context.Context, error)
	// TurnAway puts into the record that somebody was not let in.
	TurnAway(ctx context.Context, person string, why error)
	// Challenge asks a passkey for a proof that is good for this call alone.
	Challenge(ctx context.Context, call proto.Message) (roster.Ceremony, error)
	// Follow looks again whenever something has changed.
	Follow(ctx context.Context, look func() (over bool, err error)) error
	// Play shows what a recording's segments hold, each once it is checked.
	Play(ctx context.Context, m *api.ReplayTerminalRequest, show func(ledger.Segment, []byte) error) error
	Factors
}

// Factors are the caller's own factors and sessions.
type Factors interface {
	Own(ctx context.Context) (roster.Own, error)
	EndOwn(ctx context.Context, session string) error
	AskAnother(ctx context.Context, m *api.FactorRequest) (roster.Ceremony, error)
	AddPasskey(ctx context.Context, answer []byte, name string) error
	RemovePasskey(ctx context.Context, m *api.FactorRequest) error
	DeviceCode(ctx context.Context, m *api.FactorRequest) (roster.Code, error)
}

// Desk lets browsers in.
type Desk interface {
	AskSignIn() (roster.Ceremony, error)
	SignIn(ctx context.Context, answer []byte, browser string) (secret string, s roster.Session, err error)
	FollowLink(ctx context.Context, token, browser string) (secret string, s roster.Session, err error)
	AskEnrol(ctx context.Context, secret string) (person string, c roster.Ceremony, err error)
	EnrolPasskey(ctx context.Context, secret string, answer []byte, name, browser string) (cookie string, s roster.Session, err error)
	Provider
}

// A Server answers browsers.
type Server struct {
	Fleet  string
	Origin string // https://NAME[:PORT]; nothing else is answered
	API    API
	Desk   Desk
	Clock  clock.Clock
	Log    *slog.Logger
	// Provider is what people call the place where they sign in besides; empty
	// if there is none.
	Provider string
	// Code lets a command line find the server, to sign in there. It is no
	// secret.
	Code string
	// Share reports whether an address may try to sign in once more.
	Share func(address string) bool

	players players
}

//go:embed static
var static embed.FS

// asset is the path of a file under which its content never changes.
func asset(name string) string { return "/static/" + assets[name].sum + "/" + name }

type file struct {
	sum  string
	body []byte
}

var assets = readAssets()

func readAssets() map[string]file {
	all := map[string]file{}
	entries, _ := fs.ReadDir(static, "static") // it is in the binary
	for _, e := range entries {
		b, _ := fs.ReadFile(static, path.Join("static", e.Name()))
		sum := sha256.Sum256(b)
		all[e.Name()] = file{hex.EncodeToString(sum[:8]), b}
	}
	return all
}

var types = map[string]string{
	".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
}

func (s *Server) serveAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	f, ok := assets[name]
	if !ok || r.PathValue("sum") != f.sum {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", types[path.Ext(name)])
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(f.body) // the caller hung up
}

// Handler answers browsers.
func (s *Server) Handler() http.Handler {
	s.players = make(players, mostPlayers)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /static/{sum}/{name}", s.serveAsset)
	mux.HandleFunc("GET /sign-in", s.showSignIn)
	mux.HandleFunc("POST /sign-in", s.shared(s.signIn))
	mux.HandleFunc("GET /enrol", s.showEnrol)
	mux.HandleFunc("POST /enrol", s.shared(s.enrol))
	mux.HandleFunc("GET /link", s.showLink)
	mux.HandleFunc("POST /link", s.shared(s.followLink))
	mux.HandleFunc("GET /sign-in/away", s.shared(s.away))
	mux.HandleFunc("GET /sign-in/back", s.shared(s.back))
	mux.HandleFunc("POST /sign-in/account", s.shared(s.proveAccount))
	mux.HandleFunc("POST /sign-in/line", s.shared(s.signLineIn))
	mux.HandleFunc("POST /sign-out", s.signOut)

	mux.HandleFunc("GET /{$}", s.page(s.home))
	mux.HandleFunc("GET /ask/{role}", s.page(s.askForm))
	mux.HandleFunc("POST /ask/{role}", s.act(s.askForm, s.ask))
	mux.HandleFunc("GET /requests", s.page(s.requests))
	mux.HandleFunc("GET /requests/{id}", s.page(s.request))
	mux.HandleFunc("POST /requests/{id}/{do}", s.act(s.request, s.decide))
	mux.HandleFunc("GET /away", s.page(s.awayForm))
	mux.HandleFunc("POST /away/{do}", s.act(s.awayForm, s.delegate))
	mux.HandleFunc("GET /terminals", s.page(s.terminals))
	mux.HandleFunc("GET /terminals/{host}/{id}", s.page(s.terminal))
	mux.HandleFunc("GET /terminals/{host}/{id}/text", s.terminalText)
	mux.HandleFunc("GET /terminals/{host}/{id}/frames", s.terminalFrames)
	mux.HandleFunc("POST /terminals/{host}/{id}/{do}", s.act(s.terminal, s.endSession))
	mux.HandleFunc("GET /access", s.page(s.access))
	mux.HandleFunc("GET /fleet", s.page(s.fleet))
	mux.HandleFunc("GET /policy", s.page(s.policy))
	mux.HandleFunc("GET /people", s.page(s.people))
	mux.HandleFunc("POST /people/{do}", s.act(s.people, s.changePeople))
	mux.HandleFunc("GET /me", s.page(s.me))
	mux.HandleFunc("POST /me/{do}", s.act(s.me, s.changeMe))
	mux.HandleFunc("GET /", s.page(func(context.Context, *http.Request) (page, error) {
		return page{}, roster.Refuse(roster.Missing, "there is no such page")
	}))
	return s.guarded(mux)
}

const policyOfContent = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; " +
	"base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types curfew"

// guarded lets through what a page of ours asks for, under our name, and tells
// browsers what our pages never do.
func (s *Server) guarded(next http.Handler) http.Handler {
	host := strings.TrimPrefix(s.Origin, "https://")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policyOfContent)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		// Not no-referrer: with that, browsers leave out where a form comes from.
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "publickey-credentials-get=(self), publickey-credentials-create=(self), camera=(), microphone=(), geolocation=()")
		h.Set("Strict-Transport-Security", "max-age=31536000")
		h.Set("Cache-Control", "no-store")
		if r.Host != host {
			http.Error(w, "this server is "+s.Origin, http.StatusMisdirectedRequest)
			return
		}
		// Every browser says with a form where it comes from; whatever does
		// not, has no business here.
		if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Header.Get("Origin") != s.Origin {
			http.Error(w, "this form is not of this site", http.StatusForbidden)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		next.ServeHTTP(w, r)
	})
}

// maxForm is more than the largest form of ours.
const maxForm = 64 << 10

// shared bounds what an address may do without a session.
func (s *Server) shared(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.Share(r.RemoteAddr) {
			w.Header().Set("Retry-After", "5")
			http.Error(w, "too many sign-ins from this address: wait a few seconds", http.StatusTooManyRequests)
			return
		}
		next(w, r)
	}
}

// local is a path of ours that somebody may be sent to; anything else is the
// first page.
func local(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") ||
		strings.ContainsAny(to, "\\\r\n\t") || path.Clean(u.Path) != u.Path {
		return "/"
	}
	return to
}

var statuses = map[roster.Kind]int{
	roster.Invalid: http.StatusBadRequest, roster.Unproven: http.StatusUnauthorized, roster.Stale: http.StatusUnauthorized,
	roster.Denied: http.StatusForbidden, roster.Missing: http.StatusNotFound, roster.Conflict: http.StatusConflict,
	roster.Taken: http.StatusConflict, roster.TooMuch: http.StatusTooManyRequests,
}

// refusal is what a person reads of an error. What is not hers to know goes to
// the log.
func (s *Server) refusal(ctx context.Context, r *http.Request, err error) (int, string) {
	if v := (*roster.Refusal)(nil); errors.As(err, &v) {
		return statuses[v.Kind], v.Text
	}
	if ctx.Err() == nil {
		s.Log.ErrorContext(ctx, "page failed", "path", r.URL.Path, "cause", err)
	}
	return http.StatusInternalServerError, "something went wrong on the server: its log says what"
}
