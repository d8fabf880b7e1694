package web

import (
	"context"
	"errors"
	"net/http"

	"curfew.internal/controlplane/roster"
)

// Provider lets in those for whom the provider vouches.
type Provider interface {
	GoAway(ctx context.Context, to, line string) (at, cookie string, err error)
	Arrive(ctx context.Context, cookie string, r roster.Returned) (roster.Arrived, error)
	AskArrived(ctx context.Context, pass string) (roster.Ceremony, error)
	ProveArrived(ctx context.Context, pass, code string, assertion []byte) (roster.Arrived, error)
	EnterBrowser(ctx context.Context, pass, browser string) (secret string, s roster.Session, err error)
	Land(ctx context.Context, pass string) (roster.Landing, error)
}

// awayCookie is what a browser holds while it is at the provider. It has to
// come with it from there, so it is not kept from what others link to.
const awayCookie = "__Host-curfew-away"

func (s *Server) setAway(w http.ResponseWriter, value string, age int) {
	http.SetCookie(w, &http.Cookie{
		Name: awayCookie, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: age,
	})
}

// away sends a browser to the provider. No other site sends it there.
func (s *Server) away(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		s.showSignIn(w, r)
		return
	}
	at, cookie, err := s.Desk.GoAway(r.Context(), local(r.FormValue("to")), r.FormValue("line"))
	if err != nil {
		s.notVouched(w, r, "", err)
		return
	}
	s.setAway(w, cookie, 600)
	http.Redirect(w, r, at, http.StatusSeeOther)
}

// back takes a browser that comes from the provider.
func (s *Server) back(w http.ResponseWriter, r *http.Request) {
	c, err := r.Cookie(awayCookie)
	if err != nil {
		c = &http.Cookie{} // the desk refuses it
	}
	s.setAway(w, "", -1)
	q := r.URL.Query()
	a, err := s.Desk.Arrive(r.Context(), c.Value, roster.Returned{Code: q.Get("code"), State: q.Get("state"), Issuer: q.Get("iss"), Error: q.Get("error")})
	if err != nil {
		s.notVouched(w, r, a.Person, err)
		return
	}
	s.onward(w, r, a)
}

// onward takes somebody for whom the provider vouched the next step on.
func (s *Server) onward(w http.ResponseWriter, r *http.Request, a roster.Arrived) {
	switch {
	case !a.Bound:
		s.outside(w, r, accountPage(a), nil)
	case a.Line:
		s.outside(w, r, page{Name: "line", Title: "Sign a command line in", Data: a}, nil)
	default:
		secret, v, err := s.Desk.EnterBrowser(r.Context(), a.Pass, browserOf(r))
		if err != nil {
			s.notVouched(w, r, a.Person, err)
			return
		}
		s.letIn(w, r, secret, v, local(a.To))
	}
}

func accountPage(a roster.Arrived) page {
	return page{Name: "account", Title: "Is this you?", Data: a, Passkey: len(a.Passkeys) > 0, TOTP: a.TOTP}
}

// proveAccount takes the proof that an account at the provider is hers.
func (s *Server) proveAccount(w http.ResponseWriter, r *http.Request) {
	pass := r.PostFormValue("pass")
	if wantsJSON(r) {
		c, err := s.Desk.AskArrived(r.Context(), pass)
		s.ceremony(w, r, "get", c, err)
		return
	}
	code, assertion := proof(r)
	a, err := s.Desk.ProveArrived(r.Context(), pass, code, assertion)
	switch {
	case err != nil && a.Pass != "":
		s.API.TurnAway(r.Context(), a.Person, err)
		s.outside(w, r, accountPage(a), err)
	case err != nil:
		s.notVouched(w, r, a.Person, err)
	default:
		s.onward(w, r, a)
	}
}

// signLineIn sends the browser to the command line that it signs in.
func (s *Server) signLineIn(w http.ResponseWriter, r *http.Request) {
	l, err := s.Desk.Land(r.Context(), r.PostFormValue("pass"))
	if err != nil {
		s.notVouched(w, r, "", err)
		return
	}
	s.outside(w, r, page{Name: "landed", Title: "Signed in", Data: l}, nil)
}

// notVouched says on the page to sign in why nobody is let in. What the
// provider's word lacked is for the log.
func (s *Server) notVouched(w http.ResponseWriter, r *http.Request, person string, err error) {
	s.API.TurnAway(r.Context(), person, err)
	if v := (*roster.Refusal)(nil); errors.As(err, &v) && r.Context().Err() == nil {
		s.Log.WarnContext(r.Context(), "sign-in at the provider was refused", "cause", err)
	}
	s.outside(w, r, s.signInPage("/"), err)
}
