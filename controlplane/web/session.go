package web

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// cookieName binds the cookie to this very host, over TLS: no neighbour can
// set or see it.
const cookieName = "__Host-curfew"

var errForm = roster.Refuse(roster.Denied, "this form is of an earlier session: load the page again")

// visitor is who looks at a page.
type visitor struct {
	r      *http.Request // its context makes calls to the API hers
	secret string
}

func (v visitor) ctx() context.Context { return v.r.Context() }

// visitor returns who it is, or that nobody is signed in.
func (s *Server) visitor(r *http.Request) (visitor, error) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return visitor{}, roster.Refuse(roster.Unproven, "you are not signed in")
	}
	ctx, err := s.API.As(r.Context(), c.Value)
	if err != nil {
		return visitor{}, err
	}
	return visitor{r.WithContext(ctx), c.Value}, nil
}

// token stands in each form of a session: a page of another site cannot know it.
func (v visitor) token() string {
	m := hmac.New(sha256.New, []byte(v.secret))
	m.Write([]byte("form"))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

func (v visitor) checkToken(r *http.Request) error {
	if !hmac.Equal([]byte(r.PostFormValue("token")), []byte(v.token())) {
		return errForm
	}
	return nil
}

// letIn gives the browser its cookie and sends it on.
func (s *Server) letIn(w http.ResponseWriter, r *http.Request, secret string, v roster.Session, to string) {
	s.Log.InfoContext(r.Context(), "browser signed in", "person", v.Person)
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: secret, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		MaxAge: int(v.Expires.Sub(s.Clock.Now().Wall).Seconds()),
	})
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// outside is a page for somebody who is not signed in.
func (s *Server) outside(w http.ResponseWriter, r *http.Request, p page, err error) {
	status := http.StatusOK
	if err != nil {
		status, p.Error = s.refusal(r.Context(), r, err)
	}
	s.write(w, r, status, p)
}

// signInView is where a visitor wants to, and how else she may come in.
type signInView struct{ To, Provider, Code string }

func (s *Server) signInPage(to string) page {
	return page{Name: "sign-in", Title: "Sign in", Data: signInView{to, s.Provider, s.Code}}
}

func (s *Server) showSignIn(w http.ResponseWriter, r *http.Request) {
	s.outside(w, r, s.signInPage(local(r.FormValue("to"))), nil)
}

func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	if r.PostFormValue("ask") != "" {
		c, err := s.Desk.AskSignIn()
		s.ceremony(w, r, "get", c, err)
		return
	}
	to := local(r.PostFormValue("to"))
	secret, v, err := s.Desk.SignIn(r.Context(), []byte(r.PostFormValue("assertion")), browserOf(r))
	if err != nil {
		s.API.TurnAway(r.Context(), v.Person, err)
		s.outside(w, r, s.signInPage(to), err)
		return
	}
	s.letIn(w, r, secret, v, to)
}

func (s *Server) showEnrol(w http.ResponseWriter, r *http.Request) {
	s.outside(w, r, page{Name: "enrol", Title: "Enrol a passkey", Data: browserOf(r)}, nil)
}

func (s *Server) enrol(w http.ResponseWriter, r *http.Request) {
	secret := r.PostFormValue("secret")
	if r.PostFormValue("ask") != "" {
		_, c, err := s.Desk.AskEnrol(r.Context(), secret)
		s.ceremony(w, r, "create", c, err)
		return
	}
	cookie, v, err := s.Desk.EnrolPasskey(r.Context(), secret, []byte(r.PostFormValue("made")), r.PostFormValue("name"), browserOf(r))
	if err != nil {
		s.outside(w, r, page{Name: "enrol", Title: "Enrol a passkey", Data: browserOf(r)}, err)
		return
	}
	s.letIn(w, r, cookie, v, "/")
}

func (s *Server) showLink(w http.ResponseWriter, r *http.Request) {
	s.outside(w, r, page{Name: "link", Title: "Sign in"}, nil)
}

func (s *Server) followLink(w http.ResponseWriter, r *http.Request) {
	secret, v, err := s.Desk.FollowLink(r.Context(), r.PostFormValue("secret"), browserOf(r))
	if err != nil {
		s.outside(w, r, page{Name: "link", Title: "Sign in"}, err)
		return
	}
	s.letIn(w, r, secret, v, "/me")
}

func (s *Server) signOut(w http.ResponseWriter, r *http.Request) {
	v, err := s.visitor(r)
	if err == nil {
		err = v.checkToken(r)
	}
	if err == nil {
		_, err = s.API.Logout(v.ctx(), &api.LogoutRequest{})
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: -1})
	http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
}

// fail answers an error. Whoever is not signed in is sent to where she can;
// a browser that came from another site is first made to come again by
// itself, since it keeps the cookie back from what others link to.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, text := s.refusal(r.Context(), r, err)
	v := (*roster.Refusal)(nil)
	switch {
	case !errors.As(err, &v) || v.Kind != roster.Unproven || wantsJSON(r):
	case r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Site") == "cross-site":
		s.write(w, r, http.StatusOK, page{Name: "again", Title: "One moment", Again: true})
		return
	case r.Method == http.MethodGet:
		http.Redirect(w, r, "/sign-in?to="+url.QueryEscape(local(r.URL.RequestURI())), http.StatusSeeOther)
		return
	default:
		http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
		return
	}
	if wantsJSON(r) {
		writeJSON(w, status, map[string]string{"error": text})
		return
	}
	s.write(w, r, status, page{Name: "error", Title: http.StatusText(status), Error: text})
}

// browserOf is what a browser says it is, in two words.
func browserOf(r *http.Request) string {
	agent := r.UserAgent()
	name, system := "A browser", "an unknown system"
	for _, c := range []struct{ mark, name string }{
		{"Edg/", "Edge"}, {"OPR/", "Opera"}, {"Firefox/", "Firefox"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"},
	} {
		if strings.Contains(agent, c.mark) {
			name = c.name
			break
		}
	}
	for _, c := range []struct{ mark, name string }{
		{"Android", "Android"}, {"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Mac OS X", "macOS"}, {"Windows", "Windows"}, {"Linux", "Linux"},
	} {
		if strings.Contains(agent, c.mark) {
			system = c.name
			break
		}
	}
	return name + " on " + system
}
