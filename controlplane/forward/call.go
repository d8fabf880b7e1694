package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

// errTooMuch means that a receiver does not take as much at once.
var errTooMuch = errors.New("that was more than it takes at once")

// maxReply bounds what is read of a receiver's answer.
const maxReply = 64 << 10

// caller posts to a receiver that speaks HTTP.
type caller struct {
	url       string
	tokenFile string
	client    *http.Client
}

// post sends a body, and returns the answer if it is a yes.
func (c caller) post(ctx context.Context, kind string, body []byte) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	q.Header.Set("Content-Type", kind)
	q.Header.Set("User-Agent", "curfew-server")
	if c.tokenFile != "" {
		token, err := os.ReadFile(c.tokenFile) // each time: it may be a new one
		if err != nil {
			return nil, fmt.Errorf("token_file: %w", err)
		}
		q.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	r, err := c.client.Do(q)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close() //nolint:errcheck // it is only read
	reply, err := io.ReadAll(io.LimitReader(r.Body, maxReply))
	if err != nil {
		return nil, fmt.Errorf("read its answer: %w", err)
	}
	switch {
	case r.StatusCode == http.StatusRequestEntityTooLarge:
		return nil, fmt.Errorf("it answered %s: %w", r.Status, errTooMuch)
	case r.StatusCode == http.StatusBadRequest:
		// All that OpenTelemetry's collector says of a body that is too large.
		return nil, fmt.Errorf("it answered %s, which may mean: %w", r.Status, errTooMuch)
	case r.StatusCode/100 != 2:
		return nil, fmt.Errorf("it answered %s", r.Status)
	}
	return reply, nil
}
