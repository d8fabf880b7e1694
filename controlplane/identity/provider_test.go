package identity

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/dsse"
	"curfew.internal/test/provider"
)

func (m *memory) Account(_ context.Context, issuer, subject string) (roster.Account, error) {
	p, ok := m.accounts[issuer+" "+subject]
	if !ok {
		return roster.Account{}, roster.ErrUnknown
	}
	return roster.Account{Issuer: issuer, Subject: subject, Person: p}, nil
}

func (m *memory) Arrive(_ context.Context, v roster.Arrival, _ time.Time) error {
	if m.disabled[v.Person] {
		return roster.ErrDisabled
	}
	if v.Bind {
		m.accounts[v.Issuer+" "+v.Subject] = v.Person
	}
	m.sessions[v.Session.ID], m.arrival = v.Session, v
	return nil
}

// Person knows ana and ben.
func (m *memory) Person(_ context.Context, name string) (roster.Person, error) {
	if name != "ana" && name != "ben" {
		return roster.Person{}, roster.ErrUnknown
	}
	return roster.Person{Name: name, Disabled: m.disabled[name]}, nil
}

// abroad is a bench with a real provider, at which ana is known.
type abroad struct {
	*bench
	at *provider.Provider
}

func newAbroad(t *testing.T) *abroad {
	t.Helper()
	b := newBench(t)
	b.clock.now = time.Now() // as the provider's
	b.enrol(t)
	b.pass(t)
	a := &abroad{b, provider.Start(t, origin+"/sign-in/back")}
	a.at.Has("sub-ana", "Ana@example.com", nil)
	a.connect(t, a.at.URL)
	a.Known = func(group string) bool { return group == "SRE team" || group == "DBA" }
	return a
}

// pass lets the code that was used pass by.
func (b *bench) pass(t *testing.T) { t.Helper(); b.clock.now = b.clock.now.Add(30 * time.Second) }

func (a *abroad) connect(t *testing.T, issuer string) {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(provider.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := ProviderConfig{
		GroupsClaim: "groups", Name: "Example", Issuer: issuer, ClientID: provider.ClientID, ClientSecretFile: secret, CAFile: a.at.CAFile, Domain: "example.com",
	}
	err := c.Check()
	if err == nil {
		a.Provider, err = NewProvider(c, origin, a.clock)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// goAway is a browser that comes back from the provider.
func (a *abroad) goAway(t *testing.T, name, line string) (cookie string, r roster.Returned) {
	t.Helper()
	at, cookie, err := a.GoAway(t.Context(), "/requests", line)
	if err != nil {
		t.Fatal(err)
	}
	q := a.at.SignIn(t, at, name).Query()
	return cookie, roster.Returned{Code: q.Get("code"), State: q.Get("state"), Issuer: q.Get("iss"), Error: q.Get("error")}
}

func (a *abroad) arrive(t *testing.T, name string) (roster.Arrived, error) {
	t.Helper()
	cookie, r := a.goAway(t, name, "")
	return a.Arrive(t.Context(), cookie, r)
}

// bound is ana, whose account is hers.
func (a *abroad) bound(t *testing.T) {
	t.Helper()
	v, err := a.arrive(t, "Ana@example.com")
	if err == nil {
		v, err = a.ProveArrived(t.Context(), v.Pass, a.code(t), nil)
	}
	if err == nil {
		_, _, err = a.EnterBrowser(t.Context(), v.Pass, "a browser")
	}
	if err != nil {
		t.Fatal(err)
	}
	a.pass(t)
}

func TestSignInAtTheProvider(t *testing.T) {
	a := newAbroad(t)
	v, err := a.arrive(t, "Ana@example.com")
	if err != nil || v.Person != "ana" || v.Bound || !v.TOTP || v.To != "/requests" {
		t.Fatalf("the first time: %+v, %v", v, err)
	}
	if _, _, err := a.EnterBrowser(t.Context(), v.Pass, "a browser"); !errors.Is(err, ErrAway) {
		t.Errorf("let in without the proof: %v", err)
	}
	v, _ = a.arrive(t, "Ana@example.com")
	again, err := a.ProveArrived(t.Context(), v.Pass, "000000", nil)
	if !errors.Is(err, ErrCode) || again.Pass == "" {
		t.Errorf("a wrong code: %+v, %v", again, err)
	}
	v, err = a.ProveArrived(t.Context(), again.Pass, a.code(t), nil)
	if err != nil || !v.Bound {
		t.Fatalf("a right one: %+v, %v", v, err)
	}
	secret, s, err := a.EnterBrowser(t.Context(), v.Pass, "a browser")
	if err != nil || s.Person != "ana" || s.Proved.Unix() != a.clock.now.Unix() {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, p, err := a.Browser(t.Context(), secret); err != nil || p.Name != "ana" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, _, err := a.EnterBrowser(t.Context(), v.Pass, "a browser"); !errors.Is(err, ErrAway) {
		t.Errorf("let in twice with one pass: %v", err)
	}

	// The next time she is known by the account, whatever she is called there.
	a.at.Has("sub-ana", "ana.ortiz@elsewhere.example", nil)
	v, err = a.arrive(t, "ana.ortiz@elsewhere.example")
	if err != nil || v.Person != "ana" || !v.Bound {
		t.Fatalf("the second time: %+v, %v", v, err)
	}
	if _, s, err = a.EnterBrowser(t.Context(), v.Pass, "a browser"); err != nil || !s.Proved.IsZero() {
		t.Errorf("the provider's word counts as a factor: %+v, %v", s, err)
	}
}

func TestWhoIsNotLetIn(t *testing.T) {
	for _, c := range []struct {
		name, called string
		before       func(*abroad)
		want         error
	}{
		{"somebody whom the fleet does not know", "eve@example.com", func(*abroad) {}, ErrStranger},
		{"somebody of another domain", "ana@example.org", func(*abroad) {}, ErrStranger},
		{"somebody without a domain", "ana", func(*abroad) {}, ErrStranger},
		{"a name that only looks like hers", "\u212Aana@example.com", func(*abroad) {}, ErrStranger},
		{"somebody who has enrolled nothing", "ben@example.com", func(*abroad) {}, ErrBare},
		{"somebody who is disabled", "ana@example.com", func(a *abroad) { a.store.disabled["ana"] = true }, ErrStranger},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAbroad(t)
			a.at.Has("sub-other", c.called, nil)
			c.before(a)
			if v, err := a.arrive(t, c.called); !errors.Is(err, c.want) {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
}

// Whoever is given ana's name at the provider does not become ana.
func TestNameAtTheProviderIsNoProof(t *testing.T) {
	a := newAbroad(t)
	a.bound(t)
	a.at.Has("sub-ana", "ana.old@example.com", nil)
	a.at.Has("sub-mallory", "ana@example.com", nil)
	v, err := a.arrive(t, "ana@example.com")
	if err != nil || v.Bound {
		t.Fatalf("%+v, %v", v, err)
	}
	if _, _, err := a.EnterBrowser(t.Context(), v.Pass, "a browser"); !errors.Is(err, ErrAway) {
		t.Errorf("%v", err)
	}
}

// Whoever is called like ana at the provider guesses at her codes, and does not
// keep her from using them.
func TestGuessesForAnAccount(t *testing.T) {
	a := newAbroad(t)
	a.at.Has("sub-other", "ana@EXAMPLE.com", nil)
	guess := func(name string) error {
		v, err := a.arrive(t, name)
		if err == nil {
			_, err = a.ProveArrived(t.Context(), v.Pass, "000000", nil)
		}
		return err
	}
	for range placeTries {
		if err := guess("ana@EXAMPLE.com"); !errors.Is(err, ErrCode) {
			t.Fatal(err)
		}
	}
	if err := guess("ana@EXAMPLE.com"); !errors.Is(err, errAccountTries) {
		t.Errorf("he guesses on: %v", err)
	}
	if err := guess("Ana@example.com"); !errors.Is(err, ErrCode) {
		t.Errorf("her own account is kept out: %v", err)
	}
	if err := a.SpendCodeAt(t.Context(), "web1", "ana", a.code(t)); err != nil {
		t.Errorf("she is locked out on a host: %v", err)
	}
	a.pass(t)
	if err := a.SpendCode(t.Context(), "ana", a.code(t)); err != nil {
		t.Errorf("she is locked out on her devices: %v", err)
	}
	for i := range allTries - placeTries - 1 {
		name := "ana@example.com" + strings.Repeat(" ", i) // another account each time
		if err := a.spendFor(t.Context(), name, "ana", "000000"); !errors.Is(err, ErrCode) {
			t.Fatal(err)
		}
	}
	if err := a.spendFor(t.Context(), "one more", "ana", "000000"); !errors.Is(err, errNameTries) {
		t.Errorf("many accounts guess without end: %v", err)
	}
}

func TestDisabledPersonIsSentAway(t *testing.T) {
	a := newAbroad(t)
	a.bound(t)
	v, err := a.arrive(t, "Ana@example.com")
	if err != nil {
		t.Fatal(err)
	}
	a.store.disabled["ana"] = true // while she is at the page
	if _, _, err := a.EnterBrowser(t.Context(), v.Pass, "a browser"); !errors.Is(err, ErrStranger) {
		t.Errorf("with a pass from before: %v", err)
	}
	if _, err := a.arrive(t, "Ana@example.com"); !errors.Is(err, ErrStranger) {
		t.Errorf("anew: %v", err)
	}
}

func TestGroupsThatTheProviderTells(t *testing.T) {
	for _, c := range []struct {
		name string
		says map[string]any
		want []string
	}{
		{"several, of which the policy names some", map[string]any{"groups": []string{"SRE team", "everybody", "DBA"}}, []string{"SRE team", "DBA"}},
		{"one, as a text", map[string]any{"groups": "DBA"}, []string{"DBA"}},
		{"none", map[string]any{"groups": []string{}}, []string{}},
		{"nothing is no group", nil, []string{}},
		{"another form is no group", map[string]any{"groups": map[string]any{"DBA": true}}, []string{}},
		{"what is no text is no group", map[string]any{"groups": []any{1, "DBA", nil}}, []string{"DBA"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAbroad(t)
			a.at.Has("sub-ana", "Ana@example.com", c.says)
			a.bound(t)
			if got := a.store.arrival.Groups; got == nil || !slices.Equal(got, c.want) {
				t.Errorf("%q", got)
			}
		})
	}
	a := newAbroad(t)
	a.at.Has("sub-ana", "Ana@example.com", map[string]any{"groups": []string{"DBA"}})
	a.Provider.GroupsClaim = ""
	if a.bound(t); a.store.arrival.Groups != nil {
		t.Errorf("nobody asked for groups: %q", a.store.arrival.Groups)
	}
}

// came is a browser of ana's, with what it brings from the provider.
type came struct {
	*testing.T
	*abroad
	cookie string
	r      roster.Returned
}

func TestAnswersThatDoNotCount(t *testing.T) {
	unsigned := func(claims map[string]any) string {
		b, _ := json.Marshal(claims)
		part := base64.RawURLEncoding.EncodeToString
		return part([]byte(`{"alg":"none"}`)) + "." + part(b) + "."
	}
	claim := func(a *abroad, name string, v any) {
		a.at.Spoil(func(claims map[string]any) string { claims[name] = v; return a.at.Sign(claims) })
	}
	for _, c := range []struct {
		name  string
		spoil func(*came)
		want  error
	}{
		{"as it should be", func(*came) {}, nil},
		{"as it should be, signed anew", func(c *came) { c.at.Spoil(c.at.Sign) }, nil},
		{"of another state", func(c *came) { c.r.State = "x" }, ErrProvider},
		{"without a state", func(c *came) { c.r.State = "" }, ErrProvider},
		{"in a browser that was not sent there", func(c *came) { c.cookie = "" }, ErrAway},
		{"in another browser that was sent there", func(c *came) { c.cookie, _ = c.goAway(c.T, "Ana@example.com", "") }, ErrProvider},
		{"too late", func(c *came) { c.clock.now = c.clock.now.Add(awayLife) }, ErrAway},
		{"with an error of the provider's", func(c *came) { c.r.Error, c.r.Code = "access_denied", "" }, ErrProvider},
		{"with a code that was guessed", func(c *came) { c.r.Code = "x" }, ErrProvider},
		{"with a code that was used, in another browser", func(c *came) {
			if _, err := c.Arrive(c.Context(), c.cookie, c.r); err != nil {
				c.Fatal(err)
			}
			cookie, r := c.goAway(c.T, "Ana@example.com", "")
			c.cookie, c.r.State = cookie, r.State
		}, ErrProvider},
		{"with somebody else's code, for which the verifier is another", func(c *came) {
			_, r := c.goAway(c.T, "Ana@example.com", "")
			c.r.Code = r.Code
		}, ErrProvider},
		{"twice", func(c *came) {
			if _, err := c.Arrive(c.Context(), c.cookie, c.r); err != nil {
				c.Fatal(err)
			}
		}, ErrAway},
		{"of another issuer", func(c *came) { c.r.Issuer = "https://evil.example" }, ErrProvider},
		{"of another issuer, by its token", func(c *came) { claim(c.abroad, "iss", "https://evil.example") }, ErrProvider},
		{"for another nonce", func(c *came) { claim(c.abroad, "nonce", "x") }, ErrProvider},
		{"without a nonce", func(c *came) {
			c.at.Spoil(func(claims map[string]any) string { delete(claims, "nonce"); return c.at.Sign(claims) })
		}, ErrProvider},
		{"for another client", func(c *came) { claim(c.abroad, "aud", "another") }, ErrProvider},
		{"for two clients, made for the other", func(c *came) {
			c.at.Spoil(func(claims map[string]any) string {
				claims["aud"], claims["azp"] = []string{provider.ClientID, "another"}, "another"
				return c.at.Sign(claims)
			})
		}, ErrProvider},
		{"expired", func(c *came) { claim(c.abroad, "exp", time.Now().Add(-time.Hour).Unix()) }, ErrProvider},
		{"of a subject without a name", func(c *came) { claim(c.abroad, "sub", "") }, ErrProvider},
		{"with another access token", func(c *came) { claim(c.abroad, "at_hash", "AAAAAAAAAAAAAAAAAAAAAA") }, ErrProvider},
		{"signed by nobody", func(c *came) { c.at.Spoil(unsigned) }, ErrProvider},
		{"signed by somebody else", func(c *came) { c.at.Spoil(provider.Start(c.T, origin+"/sign-in/back").Sign) }, ErrProvider},
		{"altered after it was signed", func(c *came) {
			c.at.Spoil(func(claims map[string]any) string {
				signed := strings.Split(c.at.Sign(claims), ".")
				claims["sub"] = "sub-other"
				signed[1] = strings.Split(unsigned(claims), ".")[1]
				return strings.Join(signed, ".")
			})
		}, ErrProvider},
		{"told about somebody else", func(c *came) { claim(c.abroad, "sub", "sub-other") }, ErrProvider},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAbroad(t)
			cookie, r := a.goAway(t, "Ana@example.com", "")
			v := &came{t, a, cookie, r}
			c.spoil(v)
			got, err := a.Arrive(t.Context(), v.cookie, v.r)
			if !errors.Is(err, c.want) || c.want == nil && (err != nil || got.Person != "ana") {
				t.Errorf("%+v, %v", got, err)
			}
			if err != nil && strings.Contains(err.Error(), provider.Secret) {
				t.Error("the error holds the client's secret")
			}
		})
	}
}

// The provider whose document says that it is another is not asked further.
func TestProviderThatIsAnother(t *testing.T) {
	a := newAbroad(t)
	a.connect(t, a.at.URL+"/")
	if _, _, err := a.GoAway(t.Context(), "/", ""); !errors.Is(err, ErrProvider) {
		t.Errorf("%v", err)
	}
}

// line is a command line that a browser of ana's is about to sign in.
func (a *abroad) line(t *testing.T, alter func(*roster.Line)) (token, shown string) {
	t.Helper()
	l := roster.Line{Device: a.public(), Name: "laptop", Port: 4711, State: "known to it"}
	alter(&l)
	at, shown, err := a.BeginLine(l)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(at)
	if err != nil || !strings.HasPrefix(at, origin+"/sign-in/away?") {
		t.Fatalf("%s, %v", at, err)
	}
	return u.Query().Get("line"), shown
}

func (a *abroad) finish(t *testing.T, pass string, alter func(*roster.LineLogin)) (roster.Session, error) {
	t.Helper()
	l := roster.LineLogin{Pass: pass, Device: a.public(), At: a.clock.now.Unix()}
	sign := func(k ed25519.PrivateKey) {
		l.Signature = ed25519.Sign(k, dsse.PAE(LineType, []byte("lab\x00"+l.Pass+"\x00"+strconv.FormatInt(l.At, 10))))
	}
	sign(a.key)
	alter(&l)
	return a.FinishLine(t.Context(), l)
}

// landed is the pass of a command line that a browser of ana's signs in.
func (a *abroad) landed(t *testing.T) roster.Landing {
	t.Helper()
	token, shown := a.line(t, func(*roster.Line) {})
	cookie, r := a.goAway(t, "Ana@example.com", token)
	v, err := a.Arrive(t.Context(), cookie, r)
	if err != nil || !v.Line || v.Name != "laptop" || v.Check != shown || len(shown) != 9 {
		t.Fatalf("%+v, %v: the page shows another check than %s", v, err, shown)
	}
	if _, _, err := a.EnterBrowser(t.Context(), v.Pass, "a browser"); !errors.Is(err, ErrAway) {
		t.Errorf("a browser takes what is a command line's: %v", err)
	}
	cookie, r = a.goAway(t, "Ana@example.com", token)
	if v, err = a.Arrive(t.Context(), cookie, r); err != nil {
		t.Fatal(err)
	}
	l, err := a.Land(t.Context(), v.Pass)
	if err != nil || !strings.HasPrefix(l.URL, "http://127.0.0.1:4711/?") || !strings.HasSuffix(l.URL, "&state=known+to+it") {
		t.Fatalf("%+v, %v", l, err)
	}
	return l
}

func TestSignALineIn(t *testing.T) {
	other := ed25519.NewKeyFromSeed([]byte(strings.Repeat("x", 32)))
	for _, c := range []struct {
		name  string
		alter func(*abroad, *roster.LineLogin)
		want  error
	}{
		{"as it should be", func(*abroad, *roster.LineLogin) {}, nil},
		{"by another device", func(_ *abroad, l *roster.LineLogin) {
			l.Device = other.Public().(ed25519.PublicKey)
			l.Signature = ed25519.Sign(other, dsse.PAE(LineType, []byte("lab\x00"+l.Pass+"\x00"+strconv.FormatInt(l.At, 10))))
		}, ErrLine},
		{"with another device's signature", func(_ *abroad, l *roster.LineLogin) {
			l.Signature = ed25519.Sign(other, dsse.PAE(LineType, []byte("lab\x00"+l.Pass+"\x00"+strconv.FormatInt(l.At, 10))))
		}, ErrLine},
		{"without a signature", func(_ *abroad, l *roster.LineLogin) { l.Signature = nil }, ErrLine},
		{"with a pass that was made up", func(a *abroad, l *roster.LineLogin) {
			l.Pass = "x"
			l.Signature = ed25519.Sign(a.key, dsse.PAE(LineType, []byte("lab\x00x\x00"+strconv.FormatInt(l.At, 10))))
		}, ErrLine},
		{"too late", func(a *abroad, l *roster.LineLogin) {
			a.clock.now = a.clock.now.Add(landingLife)
			l.At = a.clock.now.Unix()
			l.Signature = ed25519.Sign(a.key, dsse.PAE(LineType, []byte("lab\x00"+l.Pass+"\x00"+strconv.FormatInt(l.At, 10))))
		}, ErrLine},
		{"with a clock that is wrong", func(a *abroad, l *roster.LineLogin) {
			l.At -= 120
			l.Signature = ed25519.Sign(a.key, dsse.PAE(LineType, []byte("lab\x00"+l.Pass+"\x00"+strconv.FormatInt(l.At, 10))))
		}, ErrSkew},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAbroad(t)
			a.bound(t)
			l := a.landed(t)
			s, err := a.finish(t, l.Pass, func(l *roster.LineLogin) { c.alter(a, l) })
			if !errors.Is(err, c.want) {
				t.Fatalf("%+v, %v", s, err)
			}
			if err != nil {
				return
			}
			if s.Person != "ana" || !s.Proved.IsZero() || s.Browser || !s.Expires.Equal(a.clock.now.Add(SessionLife).Truncate(time.Second)) {
				t.Errorf("%+v", s)
			}
			if _, err := a.finish(t, l.Pass, func(*roster.LineLogin) {}); !errors.Is(err, ErrLine) {
				t.Errorf("twice: %v", err)
			}
		})
	}
}
