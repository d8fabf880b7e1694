package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"curfew.internal/test/need"
)

// chrome is a real Chromium, driven by its DevTools protocol.
type chrome struct {
	ws *websocket.Conn

	mu      sync.Mutex // guards what follows
	last    int
	waiting map[int]chan reply
}

type reply struct {
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// startChrome starts a browser that trusts the key of the pages' certificate.
func startChrome(t *testing.T, pin string) *chrome {
	t.Helper()
	need.Program(t, "chromium")
	// It is ended by its own command first; what is left, by the context.
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
		"--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0", "--user-data-dir="+filepath.Join(t.TempDir(), "profile"),
		"--ignore-certificate-errors-spki-list="+pin, "about:blank")
	stderr, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	c := &chrome{waiting: map[int]chan reply{}}
	lines := bufio.NewScanner(stderr)
	var at string
	for at == "" && lines.Scan() {
		_, at, _ = strings.Cut(lines.Text(), "DevTools listening on ")
	}
	if at == "" {
		cancel()
		t.Fatal("chromium does not start")
	}
	go func() {
		for lines.Scan() { // or it would wait for us
		}
	}()
	c.ws, _, err = websocket.Dial(ctx, at, nil)
	must(t, err)
	c.ws.SetReadLimit(64 << 20)
	go c.read(ctx)
	t.Cleanup(func() {
		_, _ = c.call("", "Browser.close", nil)
		done := make(chan struct{})
		go func() { _ = cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
		}
		cancel()
		<-done
	})
	return c
}

func (c *chrome) read(ctx context.Context) {
	for {
		_, b, err := c.ws.Read(ctx)
		if err != nil {
			return
		}
		var m struct {
			ID int `json:"id"`
			reply
		}
		if json.Unmarshal(b, &m) != nil || m.ID == 0 {
			continue
		}
		c.mu.Lock()
		to := c.waiting[m.ID]
		delete(c.waiting, m.ID)
		c.mu.Unlock()
		to <- m.reply
	}
}

func (c *chrome) call(session, method string, params any) (json.RawMessage, error) {
	c.mu.Lock()
	c.last++
	id, got := c.last, make(chan reply, 1)
	c.waiting[id] = got
	c.mu.Unlock()
	m := map[string]any{"id": id, "method": method}
	if params != nil {
		m["params"] = params
	}
	if session != "" {
		m["sessionId"] = session
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.ws.Write(ctx, websocket.MessageText, b); err != nil {
		return nil, err
	}
	select {
	case r := <-got:
		if r.Error != nil {
			return nil, fmt.Errorf("%s: %s", method, r.Error.Message)
		}
		return r.Result, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: no answer", method)
	}
}

// A tab is one person's browser: nothing in it is shared with another's.
type tab struct {
	*chrome
	t       *testing.T
	session string
	origin  string
	key     string // the virtual authenticator
}

// A device is what a tab looks like.
type device struct {
	width, height int
	phone, dark   bool
}

var (
	desktop = device{width: 1280, height: 860}
	phone   = device{width: 390, height: 844, phone: true}
)

func (c *chrome) open(t *testing.T, origin string, d device) *tab {
	t.Helper()
	v := &tab{chrome: c, t: t, origin: origin}
	alone := v.must("Target.createBrowserContext", nil)["browserContextId"]
	target := v.must("Target.createTarget", map[string]any{"url": "about:blank", "browserContextId": alone})["targetId"]
	v.session = v.must("Target.attachToTarget", map[string]any{"targetId": target, "flatten": true})["sessionId"].(string)
	v.must("Page.enable", nil)
	v.look(d)
	v.must("WebAuthn.enable", nil)
	v.key = v.must("WebAuthn.addVirtualAuthenticator", map[string]any{"options": map[string]any{
		"protocol": "ctap2", "transport": "internal", "hasResidentKey": true, "hasUserVerification": true, "isUserVerified": true, "automaticPresenceSimulation": true,
	}})["authenticatorId"].(string)
	return v
}

func (v *tab) look(d device) {
	v.t.Helper()
	v.must("Emulation.setDeviceMetricsOverride", map[string]any{"width": d.width, "height": d.height, "deviceScaleFactor": 1, "mobile": d.phone})
	scheme := "light"
	if d.dark {
		scheme = "dark"
	}
	v.must("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
}

func (v *tab) must(method string, params any) map[string]any {
	v.t.Helper()
	b, err := v.call(v.session, method, params)
	must(v.t, err)
	var m map[string]any
	must(v.t, json.Unmarshal(b, &m))
	return m
}

// eval is the value of a program in the page.
func (v *tab) eval(program string) any {
	v.t.Helper()
	m := v.must("Runtime.evaluate", map[string]any{"expression": program, "returnByValue": true, "awaitPromise": true, "userGesture": true})
	if bad, ok := m["exceptionDetails"]; ok {
		v.t.Fatalf("%s: %v", program, bad)
	}
	return m["result"].(map[string]any)["value"]
}

// wait waits until the page says so.
func (v *tab) wait(what, program string) {
	v.t.Helper()
	err := within(v.t.Context(), what, func() (bool, error) {
		b, err := v.call(v.session, "Runtime.evaluate", map[string]any{"expression": "!!(" + program + ")", "returnByValue": true})
		return err == nil && strings.Contains(string(b), `"value":true`), nil
	})
	if err != nil {
		v.t.Fatalf("%v: the page is %s", err, v.text())
	}
}

// sees waits for a text on the page.
func (v *tab) sees(text string) {
	v.t.Helper()
	v.wait(text, "document.body && document.body.innerText.includes("+quote(text)+")")
}

func (v *tab) text() string {
	return fmt.Sprintln(v.eval("location.pathname + '\\n' + document.body.innerText"))
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func (v *tab) visit(path string) {
	v.t.Helper()
	v.must("Page.navigate", map[string]any{"url": v.origin + path})
	v.wait(path, "document.readyState === 'complete' && location.href.startsWith("+quote(v.origin)+")")
}

// click presses the mouse, as a hand would.
func (v *tab) click(selector string) {
	v.t.Helper()
	v.wait(selector, "document.querySelector("+quote(selector)+")")
	at, ok := v.eval(`(() => { const e = document.querySelector(` + quote(selector) + `); e.scrollIntoView({block: 'center'});
		const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()`).([]any)
	if !ok {
		v.t.Fatalf("%s is nowhere", selector)
	}
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		v.must("Input.dispatchMouseEvent", map[string]any{"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1})
	}
}

// press presses a key.
func (v *tab) press(key string, code int) {
	v.t.Helper()
	for _, kind := range []string{"keyDown", "keyUp"} {
		m := map[string]any{"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
		if key == "Enter" && kind == "keyDown" {
			m["text"] = "\r"
		}
		v.must("Input.dispatchKeyEvent", m)
	}
}

func (v *tab) write(selector, text string) {
	v.t.Helper()
	v.eval("document.querySelector(" + quote(selector) + ").focus()")
	v.must("Input.insertText", map[string]any{"text": text})
}

// shoot keeps a picture of the whole page.
func (v *tab) shoot(name string) {
	v.t.Helper()
	dir := os.Getenv("CURFEW_SCREENSHOTS")
	if dir == "" {
		return
	}
	b, err := base64.StdEncoding.DecodeString(v.must("Page.captureScreenshot", map[string]any{"format": "webp", "quality": 70, "captureBeyondViewport": true})["data"].(string))
	must(v.t, err)
	must(v.t, os.WriteFile(filepath.Join(dir, name+".webp"), b, 0o644))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
