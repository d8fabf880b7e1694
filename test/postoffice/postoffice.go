// Package postoffice runs a mail server on loopback, for tests: SMTP as RFC 5321
// has it, with answers that a test may choose.
package postoffice

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"curfew.internal/test/port"
)

// A Letter is a mail as it was taken.
type Letter struct {
	From, To, Text string
	With           string // how its sender signed in
	Secure         bool   // it came over TLS
}

// Body is what its reader sees.
func (l Letter) Body(t *testing.T) string {
	t.Helper()
	m, err := netmail.ReadMessage(strings.NewReader(l.Text))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n") + "\n"
}

// Header is a header as its reader sees it.
func (l Letter) Header(t *testing.T, name string) string {
	t.Helper()
	m, err := netmail.ReadMessage(strings.NewReader(l.Text))
	if err != nil {
		t.Fatal(err)
	}
	s, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get(name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// An Office is an SMTP server (RFC 5321). What it says may be another thing: to
// HELLO, AUTH, MAIL, DATA, TEXT (what follows that), and RCPT ADDRESS.
type Office struct {
	*testing.T
	Address string
	Secure  *tls.Config // with it, it offers STARTTLS and AUTH
	First   bool        // TLS from the first byte
	Strips  bool        // it lets people sign in without TLS
	Slow    func()      // what it does before it takes a mail; nil: nothing

	mu       sync.Mutex // guards what follows
	listener net.Listener
	conns    sync.WaitGroup
	answers  map[string]string
	tries    map[string]int
	letters  []Letter
	heard    strings.Builder // all that came without TLS
}

// New opens one, until the test ends.
func New(t *testing.T) *Office {
	t.Helper()
	address, err := port.Free(t.Context()) // it may be closed, and opened again
	if err != nil {
		t.Fatal(err)
	}
	p := &Office{T: t, Address: address, answers: map[string]string{}, tries: map[string]int{}}
	p.Listen()
	t.Cleanup(p.Stop)
	return p
}

// Listen opens the office.
func (p *Office) Listen() {
	p.Helper()
	l, err := new(net.ListenConfig).Listen(p.Context(), "tcp", p.Address)
	if err != nil {
		p.Fatal(err)
	}
	p.listener = l
	p.conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.conns.Go(func() { p.serve(c) })
		}
	})
}

// Stop closes it, once all that runs has ended.
func (p *Office) Stop() {
	_ = p.listener.Close()
	p.conns.Wait()
}

// Says has it answer so from then on; empty: as it does by itself.
func (p *Office) Says(to, answer string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers[to] = answer
}

// Took are the letters that it took since it was asked last.
func (p *Office) Took() []Letter {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.letters
	p.letters = nil
	return all
}

// Tried is how often mail for an address was handed in.
func (p *Office) Tried(address string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tries[address]
}

// said is what it says to something, if not what it does by itself.
func (p *Office) said(to string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if address, rcpt := strings.CutPrefix(to, "RCPT "); rcpt {
		p.tries[address]++
	}
	return p.answers[to]
}

// serve answers one connection.
func (p *Office) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	var l Letter
	if p.First {
		c, l.Secure = tls.Server(c, p.Secure), true
	}
	in := bufio.NewReader(c)
	say := func(s string) { _, _ = io.WriteString(c, s+"\r\n") }
	say("220 mail.example")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		p.hear(l.Secure, line)
		line = strings.TrimSpace(line)
		verb, _, _ := strings.Cut(line, " ")
		verb = strings.ToUpper(verb)
		address, _, _ := strings.Cut(line[strings.Index(line, "<")+1:], ">")
		key := map[string]string{"EHLO": "HELLO", "HELO": "HELLO", "MAIL": "MAIL", "RCPT": "RCPT " + address, "DATA": "DATA", "AUTH": "AUTH"}[verb]
		if answer := p.said(key); answer != "" {
			if answer == "cut" {
				return
			}
			say(answer)
			if strings.HasPrefix(answer, "421") {
				return
			}
			continue
		}
		switch verb {
		case "EHLO":
			p.greet(say, l.Secure)
		case "STARTTLS":
			say("220 go on")
			c, l.Secure = tls.Server(c, p.Secure), true
			in = bufio.NewReader(c)
		case "AUTH":
			l.With = strings.TrimPrefix(line, "AUTH PLAIN ")
			say("235 welcome")
		case "MAIL":
			l.From, l.To = address, ""
			say("250 yes")
		case "RCPT":
			l.To += address
			say("250 yes")
		case "DATA":
			say("354 go on")
			if l.Text, err = dotted(in); err != nil {
				return
			}
			p.take(say, l)
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 yes")
		}
	}
}

// Heard is all that came without TLS. It is for when the office is closed.
func (p *Office) Heard() string { return p.heard.String() }

func (p *Office) hear(secure bool, line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !secure {
		p.heard.WriteString(line)
	}
}

func (p *Office) greet(say func(string), secure bool) {
	say("250-mail.example")
	switch {
	case secure, p.Strips:
		say("250-AUTH PLAIN LOGIN")
	case p.Secure != nil:
		say("250-STARTTLS")
	}
	say("250-SMTPUTF8")
	say("250 ENHANCEDSTATUSCODES")
}

func (p *Office) take(say func(string), l Letter) {
	if answer := p.said("TEXT"); answer != "" {
		say(answer)
		return
	}
	if p.Slow != nil {
		p.Slow()
	}
	p.mu.Lock()
	p.letters = append(p.letters, l)
	p.mu.Unlock()
	say("250 taken")
}

// dotted reads up to a dot alone on its line.
func dotted(in *bufio.Reader) (string, error) {
	var text strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return "", err
		}
		if line == ".\r\n" {
			return text.String(), nil
		}
		text.WriteString(strings.TrimPrefix(line, "."))
	}
}

// Certified makes a certificate for 127.0.0.1, and who vouches for it.
func Certified(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}, roots
}
