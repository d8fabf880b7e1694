package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"curfew.internal/test/passkey"
)

// Pages is the origin of the pages that the control plane serves.
const Pages = "https://curfew.example:7446"

// A Browser is a person's, without a window: it sends forms by curl, and a
// passkey in software answers.
type Browser struct {
	Key   *passkey.Key
	fleet *Fleet
	jar   string // of cookies
}

var hidden = regexp.MustCompile(`name="(token|digest)" value="([^"]+)"`)

// Browser enrols a passkey of a person's by the link that she was sent.
func (f *Fleet) Browser(ctx context.Context, name, link string) (*Browser, error) {
	_, secret, ok := strings.Cut(link, "#")
	if !ok {
		return nil, fmt.Errorf("%q is no link to enrol with", link)
	}
	b := &Browser{Key: passkey.New(Pages), fleet: f, jar: filepath.Join(f.dir, "jar-"+name)}
	_, err := b.ceremony(ctx, "/enrol", url.Values{"secret": {secret}, "name": {"phone"}})
	return b, err
}

// Touch sends a form that stands on a page, which a touch of the passkey
// proves, and returns the page that it leads to.
func (b *Browser) Touch(ctx context.Context, page, action string, form url.Values) (string, error) {
	text, err := b.send(ctx, page, nil)
	if err != nil {
		return "", err
	}
	if form == nil {
		form = url.Values{}
	}
	for _, m := range hidden.FindAllStringSubmatch(text, -1) {
		form.Set(m[1], m[2])
	}
	return b.ceremony(ctx, action, form)
}

// ceremony sends the form twice: to have the passkey asked, and with its answer.
func (b *Browser) ceremony(ctx context.Context, action string, form url.Values) (string, error) {
	form.Set("ask", "passkey")
	text, err := b.send(ctx, action, form)
	if err != nil {
		return "", err
	}
	type ceremony struct {
		Options json.RawMessage `json:"options"`
		Token   string          `json:"token"`
	}
	var asked struct {
		Get, Create *ceremony
		Error       string
	}
	if err := json.Unmarshal([]byte(text), &asked); err != nil || asked.Error != "" {
		return "", errors.Join(err, fmt.Errorf("%s: %s", action, asked.Error+tail([]byte(text))))
	}
	field, c, answer := "assertion", asked.Get, b.Key.Answer
	if c == nil {
		field, c, answer = "made", asked.Create, b.Key.Make
	}
	made, err := answer(c.Options)
	if err != nil {
		return "", err
	}
	reply, err := json.Marshal(map[string]any{"token": c.Token, "answer": json.RawMessage(made)})
	if err != nil {
		return "", err
	}
	form.Del("ask")
	form.Set(field, string(reply))
	return b.send(ctx, action, form)
}

// send gets a page, or sends a form, and goes where that leads.
func (b *Browser) send(ctx context.Context, path string, form url.Values) (string, error) {
	args := []string{"-sSkL", "--fail-with-body", "--resolve", "curfew.example:7446:127.0.0.1", "-b", b.jar, "-c", b.jar, "-H", "Origin: " + Pages}
	if form != nil {
		args = append(args, "--data", "@-")
	}
	cmd := b.fleet.In(ctx, Place, "curl", append(args, Pages+path)...)
	cmd.Stdin = strings.NewReader(form.Encode())
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", path, said(err), tail(out))
	}
	return string(out), nil
}
