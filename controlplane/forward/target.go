package forward

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"curfew.internal/clock"
)

// Forms in which events are sent.
const (
	FormSyslog = "syslog" // RFC 5424
	FormOCSF   = "ocsf"   // Open Cybersecurity Schema Framework, JSON
	FormOTLP   = "otlp"   // OpenTelemetry logs
)

// Where a new target begins.
const (
	BeginStart = "start"
	BeginNow   = "now"
)

// A Target is one receiver of the record.
type Target struct {
	// Name tells targets apart; how far each has come is kept under it, so that
	// one with a new name begins anew.
	Name string `yaml:"name"`
	// Form is syslog, ocsf or otlp.
	Form string `yaml:"form"`
	// To is where: tcp://HOST:PORT, tls://HOST:PORT, udp://HOST:PORT,
	// unix:///dev/log (datagrams) or unix-stream:///PATH for syslog; file:///PATH,
	// http:// or https:// for ocsf; http:// or https:// for otlp.
	To string `yaml:"to"`
	// CAFile holds the certificates, in PEM, that the receiver's is checked
	// against. Optional; the system's.
	CAFile string `yaml:"ca_file,omitempty"`
	// TokenFile holds what is sent as "Authorization: Bearer". Optional.
	TokenFile string `yaml:"token_file,omitempty"`
	// Begin is where a target that is new begins: start, the record's first
	// event, or now. Optional; start.
	Begin string `yaml:"begin,omitempty"`
}

var (
	nameForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	schemes  = map[string][]string{
		FormSyslog: {"tcp", "tls", "udp", "unix", "unix-stream"},
		FormOCSF:   {"file", "http", "https"},
		FormOTLP:   {"http", "https"},
	}
)

// Check reports all that is wrong with targets.
func Check(targets []Target) error {
	var errs []error
	seen := map[string]bool{}
	for i, t := range targets {
		if !nameForm.MatchString(t.Name) || seen[t.Name] {
			errs = append(errs, fmt.Errorf("forward %d: give it a name of its own, of small letters, digits and -", i+1))
		}
		seen[t.Name] = true
		if err := t.check(); err != nil {
			errs = append(errs, fmt.Errorf("forward %s: %w", t.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (t Target) check() error {
	known, ok := schemes[t.Form]
	if !ok {
		return errors.New("form: write syslog, ocsf or otlp")
	}
	u, err := url.Parse(t.To)
	if err != nil || !slices.Contains(known, u.Scheme) {
		return fmt.Errorf("to: for %s, write an address that begins with %s", t.Form, strings.Join(known, ":, ")+":")
	}
	var errs []error
	local := u.Scheme == "file" || strings.HasPrefix(u.Scheme, "unix")
	switch {
	case local && (u.Host != "" || !filepath.IsAbs(u.Path)):
		errs = append(errs, fmt.Errorf("to: write it like %s:///var/log/curfew", u.Scheme))
	case !local && u.Hostname() == "", !local && t.Form == FormSyslog && (u.Port() == "" || u.Path != ""):
		errs = append(errs, fmt.Errorf("to: write it like %s://logs.example:6514", u.Scheme))
	}
	if u.User != nil {
		errs = append(errs, errors.New("to: no secret belongs into an address: use token_file"))
	}
	if t.CAFile != "" && u.Scheme != "tls" && u.Scheme != "https" {
		errs = append(errs, errors.New("ca_file: only tls: and https: have certificates"))
	}
	if t.TokenFile != "" && u.Scheme != "https" {
		errs = append(errs, errors.New("token_file: a token is sent over https: only"))
	}
	if !slices.Contains([]string{"", BeginStart, BeginNow}, t.Begin) {
		errs = append(errs, errors.New("begin: write start or now"))
	}
	return errors.Join(errs...)
}

// sink makes what sends to the target.
func (t Target) sink(fleet string, c clock.Clock, log *slog.Logger) (sink, error) {
	u, err := url.Parse(t.To)
	if err != nil {
		return nil, err
	}
	trust, err := t.trust()
	if err != nil {
		return nil, err
	}
	call := caller{url: t.To, tokenFile: t.TokenFile, client: &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: trust, ForceAttemptHTTP2: true},
		// A token is for the address that the operator wrote.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	switch {
	case t.Form == FormSyslog:
		return syslogSink{fleet: fleet, to: u, trust: trust, clock: c}, nil
	case t.Form == FormOTLP:
		return otlp{fleet: fleet, caller: call, clock: c, log: log}, nil
	case u.Scheme == "file":
		return ocsfFile{fleet: fleet, file: u.Path}, nil
	}
	return ocsfCall{fleet: fleet, caller: call}, nil
}

func (t Target) trust() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile == "" {
		return c, nil
	}
	b, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("ca_file: %s holds no certificate in PEM", t.CAFile)
	}
	return c, nil
}
