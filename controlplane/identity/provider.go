package identity

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// A ProviderConfig names the OpenID provider at which people sign in.
type ProviderConfig struct {
	// Name is what people call it; it stands on the page to sign in.
	Name string `yaml:"name"`
	// Issuer is its address, exactly as its tokens have it, such as
	// https://login.example.
	Issuer string `yaml:"issuer"`
	// ClientID is what this server is to it.
	ClientID string `yaml:"client_id"`
	// ClientSecretFile holds the secret that goes with that.
	ClientSecretFile string `yaml:"client_secret_file"`
	// CAFile holds the certificates, in PEM, that the provider's is checked
	// against. Optional; the system's.
	CAFile string `yaml:"ca_file,omitempty"`
	// Scopes are asked for besides openid. Optional; profile.
	Scopes []string `yaml:"scopes,omitempty"`
	// PersonClaim says who somebody is: the name of her account on hosts.
	// Optional; preferred_username.
	PersonClaim string `yaml:"person_claim,omitempty"`
	// GroupsClaim names the claim with the groups that somebody is in; a group
	// of the policy with {directory: NAME} has those who are in NAME there.
	// Optional; none are read.
	GroupsClaim string `yaml:"groups_claim,omitempty"`
	// ManagerClaim names the claim with the manager of somebody, in the form of
	// person_claim: whom requester:manager means among approvers. Optional;
	// none is read.
	ManagerClaim string `yaml:"manager_claim,omitempty"`
	// Domain stands behind that name, as in ana@example.com; with another
	// one, or none, the provider names nobody of ours. Optional; none.
	Domain string `yaml:"domain,omitempty"`
}

// Check says what is wrong with the configuration. What is not said is filled
// in first.
func (c *ProviderConfig) Check() error {
	if c == nil {
		return nil
	}
	if c.PersonClaim == "" {
		c.PersonClaim = "preferred_username"
	}
	if len(c.Scopes) == 0 {
		c.Scopes = []string{"profile"}
	}
	var errs []error
	u, err := url.Parse(c.Issuer)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		errs = append(errs, errors.New("oidc.issuer: write it like https://login.example, as the provider does"))
	}
	if c.ClientID == "" {
		errs = append(errs, errors.New("oidc.client_id is missing"))
	}
	if !filepath.IsAbs(c.ClientSecretFile) {
		errs = append(errs, errors.New("oidc.client_secret_file: write an absolute path"))
	}
	if err := grant.CheckText("oidc.name", c.Name, 40); err != nil || c.Name == "" {
		errs = append(errs, errors.Join(errors.New("oidc.name: write what people call the provider, in 40 characters or less"), err))
	}
	if strings.ContainsAny(c.Domain, "@ ") {
		errs = append(errs, errors.New("oidc.domain: write it like example.com"))
	}
	return errors.Join(errs...)
}

// ErrProvider is what people read when a provider's word does not count. The
// cause beside it is for the operator's log.
var ErrProvider = roster.Refuse(roster.Unproven, "the sign-in there did not succeed: try again, or ask an admin to look at the server's log")

// ErrNoProvider is for servers that know none.
var ErrNoProvider = roster.Refuse(roster.Conflict, "people of this fleet sign in here alone: run `curfew login`")

// Bounds of what a provider sends.
const (
	providerWithin = 10 * time.Second
	maxAnswer      = 1 << 20
)

// A Provider is an OpenID provider of which this server is a client.
type Provider struct {
	ProviderConfig
	redirect string
	clock    clock.Clock
	client   *http.Client
	asking   singleflight.Group
	found    atomic.Pointer[oidc.Provider]
}

// NewProvider knows the provider that sends browsers back to a page of ours.
// It is asked for nothing yet: it may be down while the server starts.
func NewProvider(c ProviderConfig, origin string, k clock.Clock) (*Provider, error) {
	p := &Provider{ProviderConfig: c, redirect: origin + "/sign-in/back", clock: k}
	if _, err := p.secret(); err != nil {
		return nil, err
	}
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		DialContext: (&net.Dialer{Timeout: providerWithin}).DialContext, IdleConnTimeout: time.Minute,
	}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read certificates of the provider: %w", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificate in it", c.CAFile)
		}
	}
	p.client = &http.Client{
		Transport: bounded{t}, Timeout: providerWithin,
		// The code and our secret go where the provider said, and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return p, nil
}

// bounded keeps an answer from filling the memory.
type bounded struct{ next http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	a, err := b.next.RoundTrip(r)
	if err == nil {
		a.Body = http.MaxBytesReader(nil, a.Body, maxAnswer)
	}
	return a, err
}

// secret is read at each use, so that a new one needs no restart.
func (p *Provider) secret() (string, error) {
	b, err := os.ReadFile(p.ClientSecretFile)
	if err != nil {
		return "", fmt.Errorf("read the client's secret: %w", err)
	}
	if s := strings.TrimSpace(string(b)); s != "" {
		return s, nil
	}
	return "", fmt.Errorf("%s is empty: put the client's secret there", p.ClientSecretFile)
}

// discover asks the provider what it is, until it has answered once. Whoever
// comes while it is being asked has the same answer: people do not stand in
// line for one that hangs, and one who gives up takes nobody along.
func (p *Provider) discover(ctx context.Context) (*oidc.Provider, error) {
	if found := p.found.Load(); found != nil {
		return found, nil
	}
	_, err, _ := p.asking.Do("", func() (any, error) {
		found, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.client), p.Issuer)
		if err != nil {
			return nil, fmt.Errorf("ask the provider what it is: %w", err)
		}
		p.found.Store(found)
		return nil, nil
	})
	return p.found.Load(), err
}

// An errand is what a sign-in at the provider is known by when it comes back.
type errand struct {
	State    string `json:"state"`
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"`
}

func (p *Provider) settings(found *oidc.Provider, secret string) *oauth2.Config {
	return &oauth2.Config{
		ClientID: p.ClientID, ClientSecret: secret, Endpoint: found.Endpoint(), RedirectURL: p.redirect, Scopes: append([]string{oidc.ScopeOpenID}, p.Scopes...),
	}
}

// away is where a browser goes to sign in.
func (p *Provider) away(ctx context.Context, e errand) (string, error) {
	found, err := p.discover(ctx)
	if err != nil {
		return "", err
	}
	return p.settings(found, "").AuthCodeURL(e.State, oidc.Nonce(e.Nonce), oauth2.S256ChallengeOption(e.Verifier)), nil
}

// A word is what a provider says of somebody.
type word struct {
	Subject string
	Person  string
	Groups  []string // nil: it was not asked
	Manager string   // a person of ours; empty: none
}

// back checks what a browser brought back, and asks the provider who it is.
func (p *Provider) back(ctx context.Context, e errand, r roster.Returned) (word, error) {
	found, err := p.discover(ctx)
	if err != nil {
		return word{}, err
	}
	if subtle.ConstantTimeCompare([]byte(e.State), []byte(r.State)) != 1 {
		return word{}, errors.New("the state is not that of this browser")
	}
	var says struct {
		Issuer bool `json:"authorization_response_iss_parameter_supported"`
	}
	if err := found.Claims(&says); err != nil {
		return word{}, err
	}
	// RFC 9207: another provider's answer is not to be brought to this one.
	if r.Issuer != p.Issuer && (r.Issuer != "" || says.Issuer) {
		return word{}, fmt.Errorf("the answer says that it is of issuer %q", r.Issuer)
	}
	if r.Error != "" || r.Code == "" {
		return word{}, fmt.Errorf("the provider said %q", r.Error)
	}
	secret, err := p.secret()
	if err != nil {
		return word{}, err
	}
	ctx = oidc.ClientContext(ctx, p.client)
	t, err := p.settings(found, secret).Exchange(ctx, r.Code, oauth2.VerifierOption(e.Verifier))
	if err != nil {
		return word{}, fmt.Errorf("exchange the code: %w", err)
	}
	id, err := p.verify(ctx, found, t, e.Nonce)
	if err != nil {
		return word{}, err
	}
	return p.says(ctx, found, t, id)
}

// verify checks the identity token: its signature, for whom it is, by whom,
// until when, and that it answers this very errand.
func (p *Provider) verify(ctx context.Context, found *oidc.Provider, t *oauth2.Token, nonce string) (*oidc.IDToken, error) {
	raw, ok := t.Extra("id_token").(string)
	if !ok {
		return nil, errors.New("the provider sent no identity token")
	}
	id, err := found.Verifier(&oidc.Config{ClientID: p.ClientID, Now: func() time.Time { return p.clock.Now().Wall }}).Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(nonce)) != 1 {
		return nil, errors.New("the identity token answers another sign-in: its nonce is not ours")
	}
	var more struct {
		Party string `json:"azp"`
	}
	if err := id.Claims(&more); err != nil {
		return nil, err
	}
	if more.Party != p.ClientID && (more.Party != "" || len(id.Audience) > 1) {
		return nil, fmt.Errorf("the identity token was made for client %q", more.Party)
	}
	if id.AccessTokenHash != "" {
		if err := id.VerifyAccessToken(t.AccessToken); err != nil {
			return nil, err
		}
	}
	if id.Subject == "" || len(id.Subject) > 255 {
		return nil, errors.New("the identity token names nobody")
	}
	return id, nil
}

// says reads who somebody is out of the identity token and, where that does
// not say, out of what the provider tells about her.
func (p *Provider) says(ctx context.Context, found *oidc.Provider, t *oauth2.Token, id *oidc.IDToken) (word, error) {
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return word{}, err
	}
	if !p.told(claims) && found.UserInfoEndpoint() != "" {
		info, err := found.UserInfo(ctx, oauth2.StaticTokenSource(t))
		if err != nil {
			return word{}, fmt.Errorf("ask the provider about her: %w", err)
		}
		if info.Subject != id.Subject {
			return word{}, fmt.Errorf("the provider tells of subject %q, and was asked about %q", info.Subject, id.Subject)
		}
		if err := info.Claims(&claims); err != nil {
			return word{}, err
		}
	}
	name, _ := claims[p.PersonClaim].(string)
	manager, _ := claims[p.ManagerClaim].(string)
	return word{Subject: id.Subject, Person: p.person(name), Groups: p.groups(claims), Manager: p.person(manager)}, nil
}

// told reports whether the claims say all that is asked for.
func (p *Provider) told(claims map[string]any) bool {
	for _, name := range []string{p.PersonClaim, p.GroupsClaim, p.ManagerClaim} {
		if _, told := claims[name]; !told && name != "" {
			return false
		}
	}
	return true
}

// groups are those that the claims say somebody is in. A claim that is not
// there, or of another form, says that she is in none.
func (p *Provider) groups(claims map[string]any) []string {
	if p.GroupsClaim == "" {
		return nil
	}
	all := []string{}
	switch v := claims[p.GroupsClaim].(type) {
	case string:
		all = append(all, v)
	case []any:
		for _, g := range v {
			if s, ok := g.(string); ok {
				all = append(all, s)
			}
		}
	}
	return all
}

// person is whom a name at the provider names here; empty: nobody.
func (p *Provider) person(name string) string {
	if p.Domain != "" {
		at := strings.LastIndexByte(name, '@')
		if at < 0 || !strings.EqualFold(name[at+1:], p.Domain) {
			return ""
		}
		name = name[:at]
	}
	// Letters that only look like ours become ours in small letters.
	if strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) {
		return ""
	}
	if name = strings.ToLower(name); grant.CheckPerson(name) != nil {
		return ""
	}
	return name
}
