package uplink

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"curfew.internal/clock"
)

// maxMessage bounds what the control plane can send: two envelopes of at most
// 1 MiB each, with room.
const maxMessage = 4 << 20

// handshake is how long a server may take to answer one.
const handshake = 30 * time.Second

func pool(ca []byte) (*x509.CertPool, error) {
	c, err := x509.ParseCertificate(ca)
	if err != nil {
		return nil, err
	}
	p := x509.NewCertPool()
	p.AddCert(c)
	return p, nil
}

// trust is the client's side of TLS, by the CA that was pinned at enrolment.
func trust(ca []byte, c clock.Clock) (*tls.Config, error) {
	p, err := pool(ca)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: p,
		Time: func() time.Time { return c.Now().Wall },
	}, nil
}

// dial makes a connection to be; nothing is sent before the first call.
func (c *Client) dial() (*grpc.ClientConn, error) {
	t, err := trust(c.Identity.CA, c.Clock)
	if err != nil {
		return nil, err
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		leaf := c.leaf()
		return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: c.Identity.Key, Leaf: leaf}, nil
	}
	return open(c.Server, t, grpc.WithContextDialer(c.Dial))
}

func open(server string, t *tls.Config, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	host, _, err := net.SplitHostPort(server)
	if err != nil {
		return nil, err
	}
	t.ServerName = host
	return grpc.NewClient("passthrough:///"+server, append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(t)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithReadBufferSize(0), grpc.WithWriteBufferSize(4096),
		grpc.WithStaticStreamWindowSize(256 << 10), grpc.WithStaticConnWindowSize(256 << 10),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		// A connection is for one session; when to try again is said there. A
		// server whose whole fleet comes back at once takes its time: whoever
		// gives up meanwhile makes it work for nothing.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: grpcbackoff.DefaultConfig, MinConnectTimeout: handshake}),
		grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
	}, more...)...)
}

func (c *Client) leaf() *x509.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.certificate
}
