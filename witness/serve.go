package witness

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"curfew.internal/ledger"
)

// maxOffer bounds an offer: a proof, and a checkpoint with the lines of many.
const maxOffer = 64 << 10

// Handler answers logs that ask for a cosignature (C2SP tlog-witness). Whoever
// asks needs no leave: what counts is the log's signature.
func (w *Witness) Handler(log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", func(rw http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxOffer))
		var o ledger.Offer
		origin := ""
		if err == nil {
			o, origin, err = ledger.ParseOffer(b)
		}
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		line, size, err := w.cosign(o, origin)
		if err == nil {
			rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(rw, line) // a log that hung up asks again
			return
		}
		status := statusOf(err)
		if !errors.Is(err, errSize) { // that is how a log asks from where to go on
			log.WarnContext(r.Context(), "not cosigned", "log", origin, "from", r.RemoteAddr, "cosigned_size", size, "cause", err)
		}
		if status == http.StatusConflict {
			rw.Header().Set("Content-Type", "text/x.tlog.size")
			rw.WriteHeader(status)
			_, _ = fmt.Fprintf(rw, "%d\n", size)
			return
		}
		http.Error(rw, err.Error(), status)
	})
	return mux
}

// statusOf is the answer to an offer that is not cosigned, as logs know it.
func statusOf(err error) int {
	for _, c := range []struct {
		err    error
		status int
	}{
		{errUnknown, http.StatusNotFound},
		{ledger.ErrCheckpoint, http.StatusForbidden},
		{errOlder, http.StatusBadRequest},
		{errSize, http.StatusConflict},
		{errFork, http.StatusConflict},
		{errGrowth, http.StatusUnprocessableEntity},
	} {
		if errors.Is(err, c.err) {
			return c.status
		}
	}
	return http.StatusInternalServerError
}
