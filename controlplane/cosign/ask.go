package cosign

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"curfew.internal/ledger"
)

// A Target is a witness.
type Target struct {
	// Key is the witness's public key, NAME+HASH+KEY, as `curfew witness init`
	// printed it.
	Key string `yaml:"key"`
	// URL is where it takes checkpoints, such as https://witness.example:7450;
	// http on loopback only.
	URL string `yaml:"url"`
	// CAFile holds the certificates that its own has to come from. Optional;
	// the system's.
	CAFile string `yaml:"ca_file,omitempty"`
}

// Check reports all that is wrong with the witnesses of a configuration.
func Check(all []Target) error {
	var errs []error
	seen := map[string]bool{}
	for i, t := range all {
		w, err := ledger.ParseWitness(t.Key)
		if err == nil && seen[w.Name] {
			err = fmt.Errorf("there is another of the name %s", w.Name)
		}
		seen[w.Name] = true
		if err = errors.Join(err, checkURL(t.URL)); err != nil {
			errs = append(errs, fmt.Errorf("witnesses, number %d: %w", i+1, err))
		}
	}
	return errors.Join(errs...)
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("url: write it like https://witness.example:7450")
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && (ip == nil || !ip.IsLoopback()) {
		return errors.New("url: http is for 127.0.0.1 and [::1] alone: write https")
	}
	return nil
}

func (t Target) witness() (*witness, error) {
	w, err := ledger.ParseWitness(t.Key)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		b, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("ca_file: %s holds no certificate", t.CAFile)
		}
	}
	return &witness{
		Witness: w, key: t.Key, url: strings.TrimSuffix(t.URL, "/") + "/add-checkpoint",
		client: &http.Client{
			Transport: &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute},
			// A witness is where the operator says, and does not lead the server
			// to other places, or to one in the clear.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

var (
	errRefuses = errors.New("the log is not what it cosigned")
	errBehind  = errors.New("another server had it cosign a newer checkpoint")
)

// maxAnswer bounds what a witness answers.
const maxAnswer = 64 << 10

// ask has a witness cosign the checkpoint, from what it is known to have
// cosigned, or from what it says.
func (k *Cosigner) ask(ctx context.Context, w *witness, old uint64, now ledger.Checkpoint, note []byte) (line string, at time.Time, err error) {
	for range atMost {
		if old > now.Size {
			return "", at, k.ahead(ctx, old)
		}
		proof, err := k.store.Growth(ctx, old, now.Size)
		if err != nil {
			return "", at, err
		}
		status, body, err := w.post(ctx, ledger.Offer{Old: old, Proof: proof, Note: note})
		if err != nil {
			return "", at, err
		}
		switch status {
		case http.StatusOK:
			return w.line(note, body)
		case http.StatusUnprocessableEntity:
			return "", at, fmt.Errorf("%w: its first %d entries are others now", errRefuses, old)
		case http.StatusConflict:
			size, err := strconv.ParseUint(strings.TrimSuffix(string(body), "\n"), 10, 62)
			if err != nil {
				return "", at, errors.New("it answers with no size")
			}
			if size == old {
				return "", at, fmt.Errorf("%w: it cosigned another state of %d entries", errRefuses, size)
			}
			old = size
		default:
			return "", at, fmt.Errorf("it answers %d: %s", status, printable(body))
		}
	}
	return "", at, errBehind
}

// ahead says what it means that a witness cosigned more than what it is asked
// to. Another server may just have had it do so; then the log has as much.
func (k *Cosigner) ahead(ctx context.Context, size uint64) error {
	now, _, err := k.log.Checkpoint(ctx)
	switch {
	case err != nil:
		return err
	case now.Size >= size:
		return errBehind
	}
	return fmt.Errorf("%w: it cosigned %d entries, and there are %d", errRefuses, size, now.Size)
}

func (w *witness) post(ctx context.Context, o ledger.Offer) (status int, body []byte, err error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(o.Bytes()))
	if err != nil {
		return 0, nil, err
	}
	r, err := w.client.Do(q)
	if err != nil {
		return 0, nil, err
	}
	defer r.Body.Close() //nolint:errcheck // it was read
	body, err = io.ReadAll(io.LimitReader(r.Body, maxAnswer))
	return r.StatusCode, body, err
}

// line is that of the witness, among those that it answers with.
func (w *witness) line(note, body []byte) (string, time.Time, error) {
	err := ledger.ErrUnsigned
	for line := range strings.Lines(string(body)) {
		var at time.Time
		if at, err = w.Cosigned(append(bytes.Clone(note), line...)); err == nil {
			return line, at, nil
		}
	}
	return "", time.Time{}, fmt.Errorf("what it answers with is no cosignature by its key: %w", err)
}

// printable is the beginning of what a stranger says.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, strings.TrimSpace(string(b[:min(len(b), 200)])))
}
