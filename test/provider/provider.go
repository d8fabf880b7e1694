// Package provider runs a real OpenID provider on loopback, for tests: that of
// zitadel/oidc, with people whom a test names, and with answers that a test
// may spoil on their way.
package provider

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// What the one client of the provider is.
const (
	ClientID = "curfew"
	Secret   = "a secret of the client"
)

// A Provider is one that runs.
type Provider struct {
	URL    string
	CAFile string // its certificate
	Client *http.Client

	store *people

	mu    sync.Mutex // guards what follows
	spoil func(claims map[string]any) (token string)
	as    string // who is at every browser
}

// people are those of the test, in the storage of the library's example.
type people struct {
	*storage.Storage

	mu    sync.Mutex // guards what follows
	users map[string]*storage.User
	says  map[string]map[string]any // further claims, by subject
}

// GetUserByID implements [storage.UserStore].
func (p *people) GetUserByID(id string) *storage.User {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.users[id]
}

// GetUserByUsername implements [storage.UserStore].
func (p *people) GetUserByUsername(name string) *storage.User {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.users {
		if u.Username == name {
			return u
		}
	}
	return nil
}

// ExampleClientID implements [storage.UserStore].
func (p *people) ExampleClientID() string { return "service" }

// SetUserinfoFromToken adds what a test says of somebody.
func (p *people) SetUserinfoFromToken(ctx context.Context, info *oidc.UserInfo, token, subject, origin string) error {
	if err := p.Storage.SetUserinfoFromToken(ctx, info, token, subject, origin); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, v := range p.says[subject] {
		info.AppendClaims(name, v)
	}
	return nil
}

// Start starts a provider that sends browsers back to the address.
func Start(t *testing.T, back string) *Provider {
	t.Helper()
	store := &people{users: map[string]*storage.User{}, says: map[string]map[string]any{}}
	client := storage.WebClient(ClientID, Secret, back)
	store.Storage = storage.NewStorageWithClients(store, map[string]*storage.Client{ClientID: client})
	p := &Provider{store: store}
	mux := http.NewServeMux()
	s := httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	p.URL, p.Client = s.URL, s.Client()
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails, crypto/rand
	provider, err := op.NewProvider(&op.Config{CryptoKey: key, CodeMethodS256: true, AuthMethodPost: true}, store, op.StaticIssuer(s.URL))
	must(t, err)
	mux.HandleFunc("/login/username", func(w http.ResponseWriter, r *http.Request) {
		id := r.FormValue("authRequestID")
		if err := store.CheckUsernamePassword(p.who(r), password, id); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		http.Redirect(w, r, op.AuthCallbackURL(provider)(op.ContextWithIssuer(r.Context(), s.URL), id), http.StatusFound)
	})
	mux.Handle("/oauth/token", p.spoiled(provider))
	mux.Handle("/", provider)
	p.CAFile = filepath.Join(t.TempDir(), "provider.pem")
	must(t, os.WriteFile(p.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	return p
}

const password = "the same for all"

// Has makes somebody known there, under a subject and a name.
func (p *Provider) Has(subject, name string, says map[string]any) {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	p.store.users[subject] = &storage.User{ID: subject, Username: name, Password: password, Email: name + "@example.com"}
	p.store.says[subject] = says
}

// Spoil has a test make the identity token of the claims that were to be in
// it; nil leaves it as it is.
func (p *Provider) Spoil(f func(claims map[string]any) (token string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spoil = f
}

// As says who sits at the browsers that come from now on, unless they say it.
func (p *Provider) As(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.as = name
}

func (p *Provider) who(r *http.Request) string {
	if name := r.FormValue("username"); name != "" {
		return name
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.as
}

// Sign signs claims with the provider's own key.
func (p *Provider) Sign(claims map[string]any) string {
	key, _ := p.store.SigningKey(context.Background())
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: key.SignatureAlgorithm(), Key: &jose.JSONWebKey{Key: key.Key(), KeyID: key.ID()}}, nil)
	if err != nil {
		panic(err)
	}
	b, _ := json.Marshal(claims)
	signed, err := signer.Sign(b)
	if err != nil {
		panic(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return token
}

// spoiled answers with what the library says, or with what a test makes of it.
func (p *Provider) spoiled(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		spoil := p.spoil
		p.mu.Unlock()
		if spoil == nil {
			next.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		var reply map[string]any
		if json.Unmarshal(body, &reply) == nil && reply["id_token"] != nil {
			token, err := jose.ParseSignedCompact(fmt.Sprint(reply["id_token"]), []jose.SignatureAlgorithm{jose.RS256})
			if err != nil {
				panic(err)
			}
			claims := map[string]any{}
			_ = json.Unmarshal(token.UnsafePayloadWithoutVerification(), &claims) // the library's own
			reply["id_token"] = spoil(claims)
			body, _ = json.Marshal(reply)
		}
		w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
		w.WriteHeader(rec.Code)
		_, _ = io.Copy(w, bytes.NewReader(body))
	})
}

// SignIn plays a browser at the provider: it follows the address that it was
// sent to, signs in under the name, and returns where it is sent back to.
func (p *Provider) SignIn(t *testing.T, at, name string) *url.URL {
	t.Helper()
	c := *p.Client
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	get := func(at string) *url.URL {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at, nil)
		must(t, err)
		a, err := c.Do(r)
		must(t, err)
		defer a.Body.Close() //nolint:errcheck // it was only read from
		to, err := a.Location()
		if err != nil {
			b, _ := io.ReadAll(a.Body)
			t.Fatalf("%s: %s %s", at, a.Status, b)
		}
		return to
	}
	login := get(at)
	q := login.Query()
	q.Set("username", name)
	login.RawQuery = q.Encode()
	return get(get(login.String()).String())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
