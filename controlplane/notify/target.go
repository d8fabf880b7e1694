package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/nicholas-fedor/shoutrrr"

	"curfew.internal/clock"
)

// Forms in which people are told.
const (
	FormSlack    = "slack"    // an incoming webhook of Slack, Mattermost and such
	FormWebhook  = "webhook"  // JSON, signed (standardwebhooks.com)
	FormShoutrrr = "shoutrrr" // mail, chat and pagers, by shoutrrr's addresses
	FormMail     = "mail"     // to the people whom a request concerns, each by herself
)

// A Target is who is told.
type Target struct {
	// Name tells targets apart; one with a new name is told from then on.
	Name string `yaml:"name"`
	// Form is slack, webhook, shoutrrr, or mail: to the people themselves whom a
	// request concerns.
	Form string `yaml:"form"`
	// ToFile holds the address, which for most receivers is a secret: an https:
	// URL, or for shoutrrr one of its own, such as smtp://…; for mail the server
	// that takes it, smtp://USER:PASSWORD@HOST:PORT/?from=ADDRESS.
	ToFile string `yaml:"to_file"`
	// KeyFile holds the key that a webhook's messages are signed with, at least
	// 24 bytes. Needed for webhook.
	KeyFile string `yaml:"key_file,omitempty"`
	// About is requests, alerts, or both. Optional; both. Mail is about requests
	// alone.
	About []string `yaml:"about,omitempty"`
}

func (t Target) wants(m Message) bool {
	if t.Form == FormMail {
		return len(m.to) > 0
	}
	return !m.own && (len(t.About) == 0 || slices.Contains(t.About, m.About))
}

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// Check reports all that is wrong with targets.
func Check(targets []Target) error {
	var errs []error
	seen := map[string]bool{}
	for i, t := range targets {
		if !nameForm.MatchString(t.Name) || seen[t.Name] {
			errs = append(errs, fmt.Errorf("notify %d: give it a name of its own, of small letters, digits and -", i+1))
		}
		seen[t.Name] = true
		if err := t.check(); err != nil {
			errs = append(errs, fmt.Errorf("notify %s: %w", t.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (t Target) check() error {
	var errs []error
	if !slices.Contains([]string{FormSlack, FormWebhook, FormShoutrrr, FormMail}, t.Form) {
		errs = append(errs, errors.New("form: write slack, webhook, shoutrrr or mail"))
	}
	if !filepath.IsAbs(t.ToFile) {
		errs = append(errs, errors.New("to_file: write the absolute path of a file that holds the address"))
	}
	if (t.Form == FormWebhook) != (t.KeyFile != "") || t.KeyFile != "" && !filepath.IsAbs(t.KeyFile) {
		errs = append(errs, errors.New("key_file: a webhook has one, with its absolute path, and nothing else has"))
	}
	for _, a := range t.About {
		if a != AboutRequests && a != AboutAlerts {
			errs = append(errs, errors.New("about: write requests or alerts"))
		}
		if t.Form == FormMail && a == AboutAlerts {
			errs = append(errs, errors.New("about: alerts concern nobody by name: mail is about requests; for alerts take a target of another form"))
		}
	}
	return errors.Join(errs...)
}

// sink makes what tells the target. Its files are read at each message: they
// may be new ones.
func (t Target) sink(c clock.Clock) (sink, error) {
	if _, err := t.address(); err != nil {
		return nil, err
	}
	// An address with a secret in it is not for whoever it redirects to.
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	switch t.Form {
	case FormSlack:
		return slack{t, client}, nil
	case FormWebhook:
		if _, err := t.key(); err != nil {
			return nil, err
		}
		return webhook{t, client, c}, nil
	}
	return chat{t}, nil
}

var errAddress = errors.New("to_file: it holds no address that can be used: write an http: or https: URL into it, or for shoutrrr one of its own")

// address reads where to send. What is wrong with it is not told in its own
// words: it is a secret.
func (t Target) address() (string, error) {
	b, err := os.ReadFile(t.ToFile)
	if err != nil {
		return "", fmt.Errorf("to_file: %w", err)
	}
	s := strings.TrimSpace(string(b))
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" {
		return "", errAddress
	}
	if t.Form != FormShoutrrr && (u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http") {
		return "", errAddress
	}
	return s, nil
}

const leastKey = 24

func (t Target) key() ([]byte, error) {
	b, err := os.ReadFile(t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("key_file: %w", err)
	}
	if b = bytes.TrimSpace(b); len(b) < leastKey {
		return nil, fmt.Errorf("key_file: it holds %d bytes: write at least %d", len(b), leastKey)
	}
	return b, nil
}

// post sends JSON. Errors do not name the address.
func post(ctx context.Context, client *http.Client, to string, header http.Header, body []byte) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return errAddress
	}
	q.Header = header
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("User-Agent", "curfew-server")
	r, err := client.Do(q)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return fmt.Errorf("%w: %w", errAway, err)
	}
	defer r.Body.Close()                                     //nolint:errcheck // it is only read
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 4096)) // so that the connection can be used again
	if r.StatusCode/100 != 2 {
		return fmt.Errorf("it answered %s", r.Status)
	}
	return nil
}

type slack struct {
	Target
	client *http.Client
}

// escapes are those of Slack's mrkdwn: no text of others' makes a link or
// calls a channel.
var escapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

func (s slack) send(ctx context.Context, m Message) error {
	to, err := s.address()
	if err != nil {
		return err
	}
	text := escapes.Replace(m.Text)
	if m.Link != "" {
		text += "\n" + m.Link
	}
	b, err := json.Marshal(map[string]string{"text": text})
	if err != nil {
		return err
	}
	return post(ctx, s.client, to, http.Header{}, b)
}

type webhook struct {
	Target
	client *http.Client
	clock  clock.Clock
}

// send signs as standardwebhooks.com says: HMAC-SHA256 over id, time and body.
func (w webhook) send(ctx context.Context, m Message) error {
	to, err := w.address()
	if err != nil {
		return err
	}
	key, err := w.key()
	if err != nil {
		return err
	}
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	at := strconv.FormatInt(w.clock.Now().Wall.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(m.ID + "." + at + "."))
	mac.Write(body)
	return post(ctx, w.client, to, http.Header{
		"Webhook-Id": {m.ID}, "Webhook-Timestamp": {at}, "Webhook-Signature": {"v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))},
	}, body)
}

// chat is whatever shoutrrr speaks.
type chat struct{ Target }

func (c chat) send(_ context.Context, m Message) error {
	to, err := c.address()
	if err != nil {
		return err
	}
	text := m.Text
	if m.Link != "" {
		text += "\n" + m.Link
	}
	sender, err := shoutrrr.CreateSender(to)
	if err != nil {
		return errAddress
	}
	sender.Timeout = sendWithin
	if err := errors.Join(sender.Send(text, nil)...); err != nil {
		return errors.New("the receiver did not take it: try the address with the shoutrrr program")
	}
	return nil
}
