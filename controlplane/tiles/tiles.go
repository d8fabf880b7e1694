// Package tiles shows the log to whoever wants to check it (C2SP tlog-tiles):
// its checkpoint, and the hashes of its tree.
//
// It shows no entry. What entries say is for those who may see it, and they
// export it.
package tiles

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"golang.org/x/mod/sumdb/tlog"

	"curfew.internal/controlplane/roster"
)

// Prefix is the path under which the log is.
const Prefix = "/log/"

// atOnce is how many tiles are read at a time: whoever asks for more waits, so
// that strangers do not keep the database from its work.
const atOnce = 4

// Log is what is shown.
type Log interface {
	// Published is the checkpoint to check the tree against.
	Published(ctx context.Context) ([]byte, error)
}

// Tree has the tiles.
type Tree interface {
	Tile(ctx context.Context, t tlog.Tile) ([]byte, error)
}

// Handler answers for paths that begin with [Prefix].
func Handler(l Log, t Tree, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	failed := func(w http.ResponseWriter, r *http.Request, err error) {
		log.ErrorContext(r.Context(), "the log cannot be shown", "path", r.URL.Path, "cause", err)
		http.Error(w, "the log cannot be read now: try again", http.StatusServiceUnavailable)
	}
	mux.HandleFunc("GET "+Prefix+"checkpoint", func(w http.ResponseWriter, r *http.Request) {
		note, err := l.Published(r.Context())
		if err != nil {
			failed(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(note) // whoever hung up asks again
	})
	turns := make(chan struct{}, atOnce)
	mux.HandleFunc("GET "+Prefix+"tile/{path...}", func(w http.ResponseWriter, r *http.Request) {
		tile, ok := parse(r.PathValue("path"))
		if !ok {
			http.NotFound(w, r)
			return
		}
		select {
		case turns <- struct{}{}:
			defer func() { <-turns }()
		case <-r.Context().Done():
			return
		}
		b, err := t.Tile(r.Context(), tile)
		switch {
		case errors.Is(err, roster.ErrUnknown):
			http.NotFound(w, r)
		case err != nil:
			failed(w, r, err)
		default:
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
			_, _ = w.Write(b) //nolint:gosec // digests, which no browser shows as a page
		}
	})
	return mux
}

// parse reads LEVEL/NUMBER[.p/WIDTH]. The library's paths have the height
// before that, and its data tiles are not ours.
func parse(path string) (tlog.Tile, bool) {
	t, err := tlog.ParseTilePath("tile/8/" + path)
	return t, err == nil && t.L >= 0 && t.L < 64
}
