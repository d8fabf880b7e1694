package fleet

import (
	"errors"
	"io"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
)

// How long a connection may take to be one: to say its first byte and have its
// turn, then to be done with the handshake. Together that is shorter than agents
// are patient: nobody is worked for who has left.
const (
	turnWithin   = 18 * time.Second
	workWithin   = 10 * time.Second
	arriveWithin = turnWithin + workWithin
)

// An Arriving connection waits for its turn, is told whose it is, and says
// whether it may go on.
type Arriving interface {
	Turn(within time.Duration) (done func(), ok bool)
	Known(name string) bool
}

var (
	errCrowded = errors.New("the host has too many connections")
	errLate    = errors.New("too many arrive")
)

// arrivals gives connections their turns, and tells them which host's they are,
// once its certificate was checked.
type arrivals struct {
	credentials.TransportCredentials
	ca  *CA
	now func() time.Time
}

// ServerHandshake implements [credentials.TransportCredentials].
func (a arrivals) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	k, ok := raw.(Arriving)
	if !ok {
		return a.TransportCredentials.ServerHandshake(raw)
	}
	conn, auth, err := a.inTurn(raw, k)
	if err != nil {
		return nil, nil, err
	}
	info, tls := auth.(credentials.TLSInfo)
	if !tls || len(info.State.VerifiedChains) == 0 {
		return conn, auth, nil
	}
	// Whose certificate names no host stays a stranger, and is told so by what
	// it calls.
	name, _, err := a.ca.named(info.State.VerifiedChains[0][0])
	if err == nil && !k.Known(name) {
		return nil, nil, errors.Join(errCrowded, conn.Close())
	}
	return conn, auth, nil
}

// inTurn shakes hands when it is the connection's turn. Who has said nothing
// has none.
func (a arrivals) inTurn(raw net.Conn, k Arriving) (net.Conn, credentials.AuthInfo, error) {
	began := a.now()
	first := []byte{0}
	if err := raw.SetDeadline(began.Add(turnWithin)); err != nil {
		return nil, nil, err
	}
	if _, err := io.ReadFull(raw, first); err != nil {
		return nil, nil, err
	}
	done, ok := k.Turn(turnWithin - a.now().Sub(began))
	if !ok {
		return nil, nil, errLate
	}
	defer done()
	if err := raw.SetDeadline(a.now().Add(workWithin)); err != nil {
		return nil, nil, err
	}
	conn, auth, err := a.TransportCredentials.ServerHandshake(&begun{raw, first})
	if err != nil {
		return nil, nil, err
	}
	return conn, auth, conn.SetDeadline(began.Add(arriveWithin)) // until it is taken off
}

// A begun connection has said something already.
type begun struct {
	net.Conn
	said []byte
}

// Read implements [net.Conn].
func (b *begun) Read(p []byte) (int, error) {
	if len(b.said) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.said)
	b.said = b.said[n:]
	return n, nil
}

// Clone implements [credentials.TransportCredentials].
func (a arrivals) Clone() credentials.TransportCredentials {
	return arrivals{a.TransportCredentials.Clone(), a.ca, a.now}
}
