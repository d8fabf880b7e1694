package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"net/textproto"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"curfew.internal/controlplane/roster"
)

// Ports at which mail servers take mail (RFC 8314).
const (
	startTLSPort = 587
	tlsPort      = 465
)

var errRelay = errors.New("to_file: it holds no address that can be used: write smtp://USER:PASSWORD@HOST:PORT/?from=ADDRESS into it, or smtps://… if the server wants TLS from the first byte")

// A relay is a mail server that takes mails for people. Without the word of the
// one who runs this it is spoken to over TLS alone, and a password never
// otherwise.
type relay struct {
	host           string
	port           int
	user, password string
	from           netmail.Address
	implicit       bool           // TLS from the first byte
	open           bool           // no TLS
	roots          *x509.CertPool // that its certificate is checked against; nil: the system's
}

// relay reads where mails are handed in. What is wrong with it is not told in its
// own words: there is a password in it.
func (t Target) relay() (relay, error) {
	b, err := os.ReadFile(t.ToFile)
	if err != nil {
		return relay{}, fmt.Errorf("to_file: %w", err)
	}
	u, err := url.Parse(strings.TrimSpace(string(b)))
	if err != nil || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.Scheme != "smtp" && u.Scheme != "smtps" {
		return relay{}, errRelay
	}
	r := relay{host: u.Hostname(), port: startTLSPort, user: u.User.Username(), implicit: u.Scheme == "smtps"}
	r.password, _ = u.User.Password()
	if r.implicit {
		r.port = tlsPort
	}
	if u.Port() != "" {
		if r.port, err = strconv.Atoi(u.Port()); err != nil {
			return relay{}, errRelay
		}
	}
	if r.user == "" && r.password != "" {
		return relay{}, errRelay
	}
	err = r.ask(u.RawQuery)
	return r, err
}

// ask reads what stands behind the question mark.
func (r *relay) ask(query string) error {
	q, err := url.ParseQuery(query)
	if err != nil {
		return errRelay
	}
	from, err := netmail.ParseAddress(q.Get("from"))
	if err != nil || roster.CheckEmail(from.Address) != nil {
		return errRelay
	}
	r.from, r.open = *from, q.Get("tls") == "off"
	for key, values := range q {
		if key != "from" && (key != "tls" || !r.open || r.implicit || r.user != "") || len(values) != 1 {
			return errRelay
		}
	}
	return nil
}

// A carrier is a connection to a relay.
type carrier struct {
	relay
	client *mail.Client
	drop   func() // lets go of it, which the library does not where it fails
}

// dial opens one. It is cut when ctx is done.
func (r relay) dial(ctx context.Context) (*carrier, error) {
	c := &carrier{relay: r, drop: func() {}}
	secure := &tls.Config{ServerName: r.host, MinVersion: tls.VersionTLS12, RootCAs: r.roots}
	policy := mail.TLSMandatory
	switch {
	case r.open:
		policy = mail.NoTLS
	case r.implicit:
		policy = mail.TLSOpportunistic // which it is, by then
	}
	options := []mail.Option{
		mail.WithPort(r.port), mail.WithTimeout(sendWithin), mail.WithTLSConfig(secure), mail.WithTLSPolicy(policy), mail.WithoutSMTPUTF8(), // addresses are ASCII
		mail.WithDialContextFunc(func(dialing context.Context, network, _ string) (net.Conn, error) {
			// Not as the library writes it, which no address of IPv6 survives.
			conn, err := (&net.Dialer{}).DialContext(dialing, network, net.JoinHostPort(r.host, strconv.Itoa(r.port)))
			if err != nil {
				return nil, err
			}
			cut := context.AfterFunc(ctx, func() { _ = conn.Close() })
			c.drop = func() { cut(); _ = conn.Close() }
			if !r.implicit {
				return conn, nil
			}
			wrapped := tls.Client(conn, secure)
			return wrapped, wrapped.HandshakeContext(dialing)
		}),
	}
	if r.user != "" {
		options = append(options, mail.WithUsername(r.user), mail.WithPassword(r.password),
			mail.WithOpportunisticSMTPAuth(mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthPlain, mail.SMTPAuthLogin))
	}
	var err error
	if c.client, err = mail.NewClient(r.host, options...); err != nil {
		return nil, errRelay
	}
	if err := c.client.DialWithContext(ctx); err != nil {
		c.drop()
		return nil, fmt.Errorf("%w: %w", errAway, unquoted(err))
	}
	return c, nil
}

// unquoted is an error without what a mail server said in its own words, which
// may be what it was told: its password, in the end.
func unquoted(err error) error {
	var answer *textproto.Error
	var none textproto.ProtocolError
	switch {
	case errors.As(err, &answer):
		return fmt.Errorf("the mail server answered %d", answer.Code)
	case errors.As(err, &none):
		return errors.New("the mail server does not speak SMTP")
	case errors.Is(err, smtp.ErrUnexpectedServerResponse), errors.Is(err, smtp.ErrUnexpectedServerChallange):
		return errors.New("the mail server does not let us sign in as it says")
	}
	return err
}

func (c *carrier) close() {
	_ = c.client.Close() // it says goodbye, and whether that is heard does not matter
	c.drop()
}

// send hands in a mail to one address, and no other stands in it. An error names
// none; [errAway] is one by which the connection may be gone.
func (c *carrier) send(what roster.Mail, to string, at time.Time) error {
	_, domain, _ := strings.Cut(c.from.Address, "@")
	m := mail.NewMsg(mail.WithNoDefaultUserAgent(), mail.WithEncoding(mail.EncodingQP))
	m.FromMailAddress(&c.from)
	if err := m.To(to); err != nil {
		return errors.New("her address is none")
	}
	m.Subject(what.Subject)
	m.SetDateWithValue(at.UTC())
	m.SetMessageIDWithValue(what.ID + "@" + domain)
	m.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nobody's holidays answer
	m.SetBodyString(mail.TypeTextPlain, what.Body)
	err := c.client.Send(m)
	if err == nil || m.IsDelivered() {
		return nil
	}
	var said *mail.SendError
	if errors.As(err, &said) && said.ErrorCode() != 0 {
		return errors.New(strings.TrimSpace(fmt.Sprintf("the mail server answered %d %s", said.ErrorCode(), said.EnhancedStatusCode())))
	}
	return fmt.Errorf("%w: the mail server went away", errAway)
}
