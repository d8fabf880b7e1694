package signature

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

var (
	seed = bytes.Repeat([]byte{7}, ed25519.SeedSize)
	key  = ed25519.NewKeyFromSeed(seed)
	noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

type whoKey struct{}

// sessions is a table of sessions that remembers nonces.
type sessions struct {
	keys map[string]ed25519.PublicKey
	used map[string]bool
}

var errNoSession = errors.New("no such session")

func (s sessions) Session(ctx context.Context, id string) (context.Context, ed25519.PublicKey, error) {
	k, ok := s.keys[id]
	if !ok {
		return nil, nil, errNoSession
	}
	return context.WithValue(ctx, whoKey{}, id), k, nil
}

func (s sessions) UseNonce(_ context.Context, session, nonce string, _ time.Time) error {
	if s.used[session+nonce] {
		return ErrReplayed
	}
	s.used[session+nonce] = true
	return nil
}

type bench struct {
	verifier Verifier
	refused  error
	body     string
	who      any
}

func newBench() *bench {
	b := &bench{}
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))
	b.verifier = Verifier{
		Sessions: sessions{keys: map[string]ed25519.PublicKey{
			"s-ana": key.Public().(ed25519.PublicKey), "s-ben": other.Public().(ed25519.PublicKey),
		}, used: map[string]bool{}},
		Now:    func() time.Time { return noon },
		Open:   func(p string) bool { return p == "/open" },
		Refuse: func(_ http.ResponseWriter, _ *http.Request, err error) { b.refused = err },
	}
	return b
}

func (b *bench) serve(r *http.Request) error {
	b.refused, b.body, b.who = nil, "", nil
	b.verifier.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		b.body, b.who = string(got), r.Context().Value(whoKey{})
	})).ServeHTTP(httptest.NewRecorder(), r)
	return b.refused
}

func signed(t *testing.T, path, body string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	Signer{"s-ana", key}.Sign(r, []byte(body), noon, "AAAAAAAAAAAAAAAAAAAAAA")
	return r
}

func TestVerify(t *testing.T) {
	for _, c := range []struct {
		name  string
		alter func(r *http.Request)
		want  error
	}{
		{"as it was signed", func(*http.Request) {}, nil},
		{"other body", func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("hellp")) }, ErrDigest},
		{"other body, with its digest", func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader("hellp"))
			r.Header.Set(headerDigest, Digest([]byte("hellp")))
		}, ErrFalse},
		{"other path", func(r *http.Request) { r.URL.Path = "/other" }, ErrFalse},
		{"a query", func(r *http.Request) { r.URL.RawQuery = "a=b" }, ErrForm},
		{"other method", func(r *http.Request) { r.Method = http.MethodPut }, ErrFalse},
		{"other session", func(r *http.Request) {
			r.Header.Set(headerInput, strings.Replace(r.Header.Get(headerInput), "s-ana", "s-ben", 1))
		}, ErrFalse},
		{"unknown session", func(r *http.Request) {
			r.Header.Set(headerInput, strings.Replace(r.Header.Get(headerInput), "s-ana", "s-eve", 1))
		}, errNoSession},
		{"other key", func(r *http.Request) {
			Signer{"s-ben", key}.Sign(r, []byte("hello"), noon, rand.Text())
		}, ErrFalse},
		{"expired", func(r *http.Request) {
			Signer{"s-ana", key}.Sign(r, []byte("hello"), noon.Add(-61*time.Second), rand.Text())
		}, ErrClock},
		{"from the future", func(r *http.Request) {
			Signer{"s-ana", key}.Sign(r, []byte("hello"), noon.Add(61*time.Second), rand.Text())
		}, ErrClock},
		{"unsigned", func(r *http.Request) { r.Header = http.Header{} }, ErrUnsigned},
		{"signature of zeros", func(r *http.Request) { r.Header.Set(headerSignature, formatSignature(make([]byte, 64))) }, ErrFalse},
		{"short signature", func(r *http.Request) { r.Header.Set(headerSignature, formatSignature(make([]byte, 63))) }, ErrForm},
		{"two signatures", func(r *http.Request) { r.Header.Add(headerSignature, r.Header.Get(headerSignature)) }, ErrForm},
		{"fewer components", func(r *http.Request) {
			r.Header.Set(headerInput, strings.Replace(r.Header.Get(headerInput), ` "content-digest"`, "", 1))
		}, ErrForm},
		{"time with a leading zero", func(r *http.Request) {
			r.Header.Set(headerInput, strings.Replace(r.Header.Get(headerInput), "created=", "created=0", 1))
		}, ErrForm},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench()
			r := signed(t, "/a/b", "hello")
			c.alter(r)
			if err := b.serve(r); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if c.want == nil && (b.body != "hello" || b.who != "s-ana") {
				t.Fatalf("handler saw body %q of %v", b.body, b.who)
			}
			if c.want != nil && b.who != nil {
				t.Fatal("the handler was called all the same")
			}
		})
	}
}

func TestNonceCountsOnce(t *testing.T) {
	b := newBench()
	if err := b.serve(signed(t, "/a", "x")); err != nil {
		t.Fatal(err)
	}
	if err := b.serve(signed(t, "/a", "x")); !errors.Is(err, ErrReplayed) {
		t.Fatalf("second time: %v", err)
	}
}

func TestBodyIsBounded(t *testing.T) {
	b := newBench()
	if err := b.serve(signed(t, "/a", strings.Repeat("x", MaxBody+1))); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
	if err := b.serve(signed(t, "/a", strings.Repeat("x", MaxBody))); err != nil {
		t.Fatalf("1 MiB: %v", err)
	}
}

func TestOpenPathNeedsNone(t *testing.T) {
	b := newBench()
	if err := b.serve(httptest.NewRequest(http.MethodPost, "/open", strings.NewReader("x"))); err != nil || b.body != "x" {
		t.Fatalf("%v, body %q", err, b.body)
	}
}

func TestTransport(t *testing.T) {
	b := newBench()
	server := httptest.NewServer(b.verifier.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	})))
	defer server.Close()
	client := http.Client{Transport: Transport{
		Session: "s-ana", Key: key, Base: http.DefaultTransport, Now: func() time.Time { return noon },
	}}
	res, err := client.Post(server.URL+"/p", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, _ := io.ReadAll(res.Body); string(got) != "hello" || b.refused != nil {
		t.Fatalf("%q, %v", got, b.refused)
	}
	_, err = client.Post(server.URL+"/p", "text/plain", strings.NewReader(strings.Repeat("x", MaxBody+1)))
	if uerr := (*url.Error)(nil); !errors.As(err, &uerr) || !errors.Is(err, ErrTooLarge) {
		t.Fatalf("too large: %v", err)
	}
}

// TestGolden holds the profile to bytes that another program can be tested
// against: docs/protocol/api.md points here.
func TestGolden(t *testing.T) {
	body := []byte(`{"role":"db-admin"}`)
	r := httptest.NewRequest(http.MethodPost, "/curfew.api.v1.Curfew/CreateRequest", nil)
	Signer{"s-ana", key}.Sign(r, body, noon, "AAAAAAAAAAAAAAAAAAAAAA")
	p, err := parseInput(r.Header.Get(headerInput))
	if err != nil {
		t.Fatal(err)
	}
	got := "content-digest: " + r.Header.Get(headerDigest) + "\nsignature-input: " + r.Header.Get(headerInput) +
		"\nsignature: " + r.Header.Get(headerSignature) + "\n\n" + string(base(r.Method, r.URL.Path, r.Header.Get(headerDigest), p)) + "\n"
	const file = "testdata/golden.txt"
	if os.Getenv("CURFEW_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("curfew="+params{1, "AAAAAAAAAAAAAAAAAAAAAA", "s-a"}.String(), formatSignature(make([]byte, 64)))
	f.Fuzz(func(t *testing.T, input, sig string) {
		if p, err := parseInput(input); err == nil && "curfew="+p.String() != input {
			t.Errorf("%q has a second spelling", input)
		}
		if raw, err := parseSignature(sig); err == nil && formatSignature(raw) != sig {
			t.Errorf("%q has a second spelling", sig)
		}
	})
}
