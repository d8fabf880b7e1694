package tiles

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"curfew.internal/controlplane/roster"
)

// log has one checkpoint, and a tile that says which was asked for.
type log struct{ broken error }

func (l log) Published(context.Context) ([]byte, error) { return []byte("note\n"), l.broken }

func (l log) Tile(_ context.Context, t tlog.Tile) ([]byte, error) {
	if t.L > 1 {
		return nil, roster.ErrUnknown
	}
	return []byte(t.Path()), l.broken
}

func get(t *testing.T, l log, method, path string) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(l, l, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
	return w.Result()
}

func TestPaths(t *testing.T) {
	for _, c := range []struct {
		name, method, path string
		status             int
		body               string
	}{
		{"the checkpoint", "GET", "/log/checkpoint", 200, "note\n"},
		{"a whole tile", "GET", "/log/tile/0/000", 200, "tile/8/0/000"},
		{"one that is not whole", "GET", "/log/tile/1/x001/234.p/17", 200, "tile/8/1/x001/234.p/17"},
		{"one that there is not", "GET", "/log/tile/2/000", 404, ""},
		{"one of a level that there is not", "GET", "/log/tile/64/000", 404, ""},
		{"one in another spelling", "GET", "/log/tile/0/0", 404, ""},
		{"a width that is whole", "GET", "/log/tile/0/000.p/256", 404, ""},
		{"entries are not shown", "GET", "/log/tile/entries/000", 404, ""},
		{"nor in the library's own way", "GET", "/log/tile/data/000", 404, ""},
		{"a way out", "GET", "/log/tile/..%2f..%2fcheckpoint", 404, ""},
		{"nothing is taken", "POST", "/log/checkpoint", 405, ""},
	} {
		r := get(t, log{}, c.method, c.path)
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != c.status || c.body != "" && string(body) != c.body {
			t.Errorf("%s: %d %s, %v", c.name, r.StatusCode, body, err)
		}
	}
}

func TestWhatCannotBeReadIsTriedAgain(t *testing.T) {
	for _, path := range []string{"/log/checkpoint", "/log/tile/0/000"} {
		if r := get(t, log{errors.New("no")}, "GET", path); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Cache-Control") != "" {
			t.Errorf("%s: %d", path, r.StatusCode)
		}
	}
}
