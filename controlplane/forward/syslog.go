package forward

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/leodido/go-syslog/v4/rfc5424"
	"golang.org/x/sys/unix"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
)

const (
	// facility is "log audit".
	facility = 13
	// element names our structured data: 32473 is the enterprise number for
	// those that have none (RFC 5612).
	element = "curfew@32473"
	// maxParam and maxMessage keep a message under the 8 KiB that receivers
	// usually take whole. What they cut off is in the record, under "entry".
	maxParam   = 1024
	maxMessage = 4096
	// answerWithin is how long a receiver may take to read what was sent.
	answerWithin = 20 * time.Second
)

var severities = map[gravity]uint8{plain: 6, notable: 5, warning: 4, grave: 3}

// syslogSink sends RFC 5424 messages.
type syslogSink struct {
	fleet string
	to    *url.URL
	trust *tls.Config
	clock clock.Clock
}

// message is one event.
func (s syslogSink) message(v roster.Event) (string, error) {
	e := v.Entry
	m := &rfc5424.SyslogMessage{}
	m.SetVersion(1).SetPriority(facility*8 + severities[gravityOf(v)]).SetTimestamp(e.At.UTC().Format("2006-01-02T15:04:05.999999Z07:00")).
		SetHostname(hostname(v)).SetAppname("curfew").SetMsgID(v.Kind)
	params := [][2]string{
		{"entry", strconv.FormatUint(v.ID, 10)},
		{"fleet", s.fleet},
		{"host", v.Host},
		{"grant", e.Grant},
		{"person", e.Person},
		{"approvers", strings.Join(e.Approvers, ",")},
		{"role", v.Role},
		{"request", e.Request},
		{"step", e.Step},
		{"outcome", v.Outcome()},
		{"service", e.Service},
		{"object", e.Object},
	}
	if e.Session != 0 {
		params = append(params, [2]string{"session", strconv.FormatUint(e.Session, 16)}, [2]string{"seq", strconv.FormatUint(e.SessionSeq, 10)})
	}
	if e.Lost > 0 {
		params = append(params, [2]string{"lost", strconv.FormatUint(e.Lost, 10)})
	}
	if v.Deleted {
		params = append(params, [2]string{"deleted", "true"})
	}
	if p := e.Process; p != nil {
		params = append(params, [2]string{"pid", strconv.FormatUint(uint64(p.PID), 10)}, [2]string{"uid", strconv.FormatUint(uint64(p.IDs.EUID), 10)},
			[2]string{"path", p.Path}, [2]string{"cwd", p.Cwd})
	}
	data := map[string]string{}
	for _, p := range params {
		if p[1] != "" {
			data[p[0]] = cutParam(oneLine(strings.ToValidUTF8(p[1], "?")))
		}
	}
	// Not by SetParameter, which passes over what it would have to escape.
	m.StructuredData = &map[string]map[string]string{element: data}
	m.SetMessage(cut(sentence(v), maxMessage))
	text, err := m.String()
	if err != nil {
		return "", fmt.Errorf("entry %d as syslog: %w", v.ID, err)
	}
	return text, nil
}

// cutParam bounds a value as it is sent: some characters are two bytes there.
func cutParam(s string) string {
	room := maxParam
	for i := range len(s) {
		if room--; strings.IndexByte(`"\]`, s[i]) >= 0 {
			room--
		}
		if room < 0 {
			return cut(s, i)
		}
	}
	return s
}

// hostname is the host that the event is about. The control plane's own
// events have none.
func hostname(v roster.Event) string {
	if v.Host == "" {
		return "-"
	}
	return v.Host
}

// send hands events to the receiver. A datagram is sent when the kernel took
// it: nobody says that it arrived. A stream is closed on our side, and the
// receiver, once it has read everything, closes its own: had it left anything
// unread, its kernel would have broken the connection instead.
func (s syslogSink) send(ctx context.Context, events []roster.Event) error {
	c, datagrams, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // what counts is the receiver's side
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var all bytes.Buffer
	for _, v := range events {
		text, err := s.message(v)
		if err != nil {
			return err
		}
		if datagrams {
			if _, err := io.WriteString(c, text); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(&all, "%d %s", len(text), text) // octet counting: RFC 6587, RFC 5425
	}
	if datagrams {
		return nil
	}
	return s.handOver(ctx, c, all.Bytes())
}

func (s syslogSink) dial(ctx context.Context) (c net.Conn, datagrams bool, err error) {
	var d net.Dialer
	switch s.to.Scheme {
	case "udp":
		c, err = d.DialContext(ctx, "udp", s.to.Host)
		return c, true, err
	case "unix":
		c, err = d.DialContext(ctx, "unixgram", s.to.Path)
		return c, true, err
	case "unix-stream":
		c, err = d.DialContext(ctx, "unix", s.to.Path)
	case "tls":
		c, err = (&tls.Dialer{NetDialer: &d, Config: s.trust}).DialContext(ctx, "tcp", s.to.Host)
	default:
		c, err = d.DialContext(ctx, "tcp", s.to.Host)
	}
	return c, false, err
}

// halfCloser is a stream whose one direction can end before the other.
type halfCloser interface{ CloseWrite() error }

func (s syslogSink) handOver(ctx context.Context, c net.Conn, all []byte) error {
	if _, err := c.Write(all); err != nil {
		return err
	}
	half, ok := c.(halfCloser)
	if !ok {
		return fmt.Errorf("%s cannot be closed on one side", s.to.Scheme)
	}
	if err := half.CloseWrite(); err != nil {
		return err
	}
	if err := c.SetReadDeadline(s.clock.Now().Wall.Add(answerWithin)); err != nil {
		return err
	}
	switch _, err := io.Copy(io.Discard, c); {
	// Of TLS receivers some, like rsyslog, end without a word of TLS.
	case err == nil, errors.Is(err, io.ErrUnexpectedEOF):
		return s.arrived(ctx, c)
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return errUnknown
	default:
		return fmt.Errorf("it went away before it had read everything: %w", err)
	}
}

var errUnknown = fmt.Errorf("it did not close the connection within %v after the last message: nobody knows whether it read all", answerWithin)

// arriveEvery is how often it is looked whether all has arrived.
const arriveEvery = 10 * time.Millisecond

// arrived waits until the receiver's kernel has all that was sent. One that ends while
// something is on its way to it closes its side like one that has read all; what comes
// after that its kernel refuses.
func (s syslogSink) arrived(ctx context.Context, c net.Conn) error {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	socket, ok := c.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%s: nobody knows what has arrived", s.to.Scheme)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	for until := s.clock.Now().Wall.Add(answerWithin); s.clock.Now().Wall.Before(until); {
		var left, failed int
		var looked error
		if err := raw.Control(func(fd uintptr) {
			if left, looked = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); looked == nil {
				failed, looked = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
			}
		}); err != nil || looked != nil {
			return errors.Join(err, looked)
		}
		if failed != 0 {
			return fmt.Errorf("it went away before everything had arrived: %w", syscall.Errno(failed))
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.clock.After(arriveEvery):
		}
	}
	return errUnknown
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
