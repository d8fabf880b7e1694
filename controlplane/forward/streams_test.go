package forward

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leodido/go-syslog/v4"
	"github.com/leodido/go-syslog/v4/octetcounting"
	"github.com/leodido/go-syslog/v4/rfc5424"
	"golang.org/x/sys/unix"
)

// takeMessages reads a stream of messages to its end.
func (g *got) takeMessages(t *testing.T, r io.Reader) {
	t.Helper()
	octetcounting.NewParser(toListener(func(m *rfc5424.SyslogMessage) { g.take(t, lastWord(*m.Message)) })).Parse(r)
}

func toListener(f func(*rfc5424.SyslogMessage)) syslog.ParserOption {
	return syslog.WithListener(func(r *syslog.Result) {
		if m, ok := r.Message.(*rfc5424.SyslogMessage); ok && r.Error == nil {
			f(m)
		}
	})
}

// listen serves connections until the test is over.
func listen(t *testing.T, l net.Listener, serve func(n int, c net.Conn)) {
	t.Helper()
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(n, c)
			_ = c.Close()
		}
	}()
}

// certificate makes one for 127.0.0.1, and the file that vouches for it.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, public, private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, file
}

func tcp(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestStreamsAreTakenWhole(t *testing.T) {
	const n = 1234
	cert, ca := certificate(t)
	for _, c := range []struct {
		name string
		open func(g *got) Target
	}{
		{"tcp", func(g *got) Target {
			l := tcp(t)
			listen(t, l, func(_ int, c net.Conn) { g.takeMessages(t, c) })
			return Target{To: "tcp://" + l.Addr().String()}
		}},
		{"tls", func(g *got) Target {
			l := tls.NewListener(tcp(t), &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
			listen(t, l, func(_ int, c net.Conn) { g.takeMessages(t, c) })
			return Target{To: "tls://" + l.Addr().String(), CAFile: ca}
		}},
		{"a stream on this machine", func(g *got) Target {
			file := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", file)
			if err != nil {
				t.Fatal(err)
			}
			listen(t, l, func(_ int, c net.Conn) { g.takeMessages(t, c) })
			return Target{To: "unix-stream://" + file}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var g got
			target := c.open(&g)
			target.Form = FormSyslog
			newShelf(n).forward(t, target)
			if twice := g.inOrder(t, n); twice > 0 {
				t.Errorf("%d came twice", twice)
			}
		})
	}
}

// A receiver that dies in the middle of a batch, at any byte, costs doubles
// and nothing else.
func TestReceiverDiesInTheMiddle(t *testing.T) {
	const n, deaths = 2000, 12
	var g got
	l := tcp(t)
	listen(t, l, func(i int, c net.Conn) {
		if i%2 == 1 || i > 2*deaths {
			g.takeMessages(t, c)
			return
		}
		// It takes some thousand bytes and ends with the rest unread.
		g.takeMessages(t, io.LimitReader(c, int64(1000+7919*i)))
	})
	log := newShelf(n).forward(t, Target{Form: FormSyslog, To: "tcp://" + l.Addr().String()})
	if g.inOrder(t, n) == 0 {
		t.Error("nothing came twice: nobody died")
	}
	if !strings.Contains(log, "alert") || !strings.Contains(log, "forwarded again") {
		t.Error("the operator was not told:", log)
	}
}

// A receiver that ends while a batch is on its way to it closes its side as if it had read
// all. What was on the way is sent again.
func TestReceiverEndsWhileABatchIsOnItsWay(t *testing.T) {
	const n = 400
	cert, ca := certificate(t)
	for _, scheme := range []string{"tcp", "tls"} {
		t.Run(scheme, func(t *testing.T) {
			var g got
			// It has room for little, so that the rest stays on the way.
			narrow := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
				var err error
				return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) }), err)
			}}
			l, err := narrow.Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			target := Target{Form: FormSyslog, To: scheme + "://" + l.Addr().String(), CAFile: ca}
			if scheme == "tls" {
				l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
			} else {
				target.CAFile = ""
			}
			listen(t, l, func(i int, c net.Conn) {
				if i > 0 {
					g.takeMessages(t, c)
					return
				}
				one := make([]byte, 1)
				if _, err := io.ReadFull(c, one); err != nil {
					t.Error(err)
				}
				side, ok := c.(interface{ NetConn() net.Conn })
				if ok {
					c = side.NetConn()
				}
				if err := c.(*net.TCPConn).CloseWrite(); err != nil {
					t.Error(err)
				}
				<-time.After(300 * time.Millisecond) // for one who believes it
			})
			newShelf(n).forward(t, target)
			g.inOrder(t, n)
		})
	}
}

func TestDatagrams(t *testing.T) {
	const n = 40
	for _, c := range []struct{ name, network, address, scheme string }{
		{"udp", "udp", "127.0.0.1:0", "udp://"},
		{"the log socket of this machine", "unixgram", filepath.Join(t.TempDir(), "log"), "unix://"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.ListenPacket(c.network, c.address)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			read := make(chan struct{})
			var g got
			go func() {
				defer close(read)
				b := make([]byte, 1<<16)
				for range n {
					size, _, err := l.ReadFrom(b)
					if err != nil {
						t.Error(err)
						return
					}
					m, err := rfc5424.NewParser().Parse(b[:size])
					if err != nil {
						t.Errorf("%v: %s", err, b[:size])
						return
					}
					g.take(t, lastWord(*m.(*rfc5424.SyslogMessage).Message))
				}
			}()
			newShelf(n).forward(t, Target{Form: FormSyslog, To: c.scheme + l.LocalAddr().String()})
			<-read
			g.inOrder(t, n)
		})
	}
}
