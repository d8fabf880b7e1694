package notify

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"

	"curfew.internal/test/postoffice"
)

func TestMailIsChecked(t *testing.T) {
	for name, target := range map[string]Target{
		"alerts":    {Name: "a", Form: FormMail, ToFile: "/x", About: []string{AboutAlerts}},
		"with key":  {Name: "a", Form: FormMail, ToFile: "/x", KeyFile: "/y"},
		"no folder": {Name: "a", Form: FormMail, ToFile: "smtp://mail.example/?from=a@example.com"},
	} {
		if err := Check([]Target{target}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if err := Check([]Target{{Name: "a", Form: FormMail, ToFile: "/x", About: []string{AboutRequests}}}); err != nil {
		t.Error(err)
	}
	for to, good := range map[string]bool{
		"smtp://ana:hush@mail.example/?from=c@example.com":              true,
		"smtps://ana:hush@mail.example:4650?from=C+<c@example.com>":     true,
		"smtp://127.0.0.1:25/?from=c@example.com&tls=off":               true,
		"smtp://ana:hush@mail.example/?from=c@example.com&tls=off":      false, // a password in the open
		"smtps://mail.example/?from=c@example.com&tls=off":              false,
		"smtp://mail.example/?from=c@example.com&tls=never":             false,
		"smtp://mail.example/?from=c@example.com&to=oncall@example.com": false,
		"smtp://mail.example/?from=hush":                                false,
		"smtp://mail.example/":                                          false,
		"smtp://:hush@mail.example/?from=c@example.com":                 false,
		"smtp:///?from=c@example.com":                                   false,
		"smtp://mail.example/x?from=c@example.com":                      false,
		"https://mail.example/?from=c@example.com":                      false,
		"hush": false,
		"":     false,
	} {
		_, err := New("", []Target{{Name: "a", Form: FormMail, ToFile: file(t, to+"\n")}}, newWorld(), newWorld(), slog.New(slog.DiscardHandler))
		if (err == nil) != good || err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("%q: %v", to, err)
		}
	}
}

// secured is an office with TLS, and its target, with a password or without.
func (o *office) secured(offers *tls.Config, first bool, to string) {
	o.Helper()
	o.at.Stop()
	o.at.Secure, o.at.First, o.at.Strips = offers, first, offers == nil
	o.at.Listen()
	o.target.ToFile = file(o.T, to+o.at.Address+"/?from=curfew@example.org")
	o.start()
	o.set(func() { o.people.waits = []string{"ben"} })
	o.ask()
}

// inTheOpen checks that nothing was said before there was TLS.
func (o *office) inTheOpen() {
	o.Helper()
	o.at.Stop()
	if heard := o.at.Heard(); strings.Contains(heard, "AUTH") || strings.Contains(heard, "MAIL") || strings.Contains(heard, "ana asks") {
		o.Errorf("in the open: %s", heard)
	}
}

// A password, and what people are told, go over TLS, by STARTTLS or from the first
// byte.
func TestMailGoesOverTLS(t *testing.T) {
	secure, roots := postoffice.Certified(t)
	for to, first := range map[string]bool{"smtp://ana:hush@": false, "smtps://ana:hush@": true} {
		o := newOffice(t)
		o.secured(secure, first, to)
		o.n.roots = roots
		o.quietly()
		if l := o.told("ben")[0]; !l.Secure || l.With != base64.StdEncoding.EncodeToString([]byte("\x00ana\x00hush")) {
			t.Errorf("%+v", l)
		}
		o.inTheOpen()
	}
}

// They go to nobody but the mail server.
func TestMailGoesToNobodyElse(t *testing.T) {
	secure, _ := postoffice.Certified(t)
	for _, c := range []struct {
		name   string
		offers *tls.Config
		first  bool
		to     string
	}{
		{"a server that offers no TLS", nil, false, "smtp://ana:hush@"},
		{"a server that offers none, and wants no password", nil, false, "smtp://"},
		{"a certificate of somebody's", secure, false, "smtp://ana:hush@"},
		{"a certificate of somebody's, from the first byte", secure, true, "smtps://ana:hush@"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOffice(t)
			o.secured(c.offers, c.first, c.to)
			if err := o.turn(); err == nil || strings.Contains(err.Error(), "hush") {
				t.Errorf("%v", err)
			}
			o.told()
			o.inTheOpen()
		})
	}
}

// What a mail server answers to a password is not told in its words: it may be that.
func TestAnAnswerIsNotQuoted(t *testing.T) {
	secure, roots := postoffice.Certified(t)
	for _, answer := range []string{"535 5.7.8 no hush here", "334 aHVzaA==", "nothing like hush"} {
		o := newOffice(t)
		o.secured(secure, false, "smtp://ana:hush@")
		o.n.roots = roots
		o.at.Says("AUTH", answer)
		if err := o.turn(); !errors.Is(err, errAway) || strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "aHVz") {
			t.Errorf("%s: %v", answer, err)
		}
		o.told()
	}
}

// A mail server may have an address of IPv6. Nobody is there.
func TestAMailServerOfIPv6(t *testing.T) {
	to, err := Target{ToFile: file(t, "smtp://[::1]:1/?from=curfew@example.org&tls=off")}.relay()
	if err != nil {
		t.Fatal(err)
	}
	var wrong *net.AddrError
	if _, err = to.dial(t.Context()); !errors.Is(err, errAway) || errors.As(err, &wrong) {
		t.Error(err)
	}
}
