package fleet

import (
	"errors"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
)

// arriveWithin is how long a connection may take to be one.
const arriveWithin = 20 * time.Second

// A Known connection is told whose it is, and says whether it may go on.
type Known interface{ Known(name string) bool }

var errCrowded = errors.New("the host has too many connections")

// arrivals tells connections which host's they are, once its certificate was
// checked.
type arrivals struct {
	credentials.TransportCredentials
	ca *CA
}

// ServerHandshake implements [credentials.TransportCredentials].
func (a arrivals) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, auth, err := a.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	k, ok := raw.(Known)
	info, tls := auth.(credentials.TLSInfo)
	if !ok || !tls || len(info.State.VerifiedChains) == 0 {
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

// Clone implements [credentials.TransportCredentials].
func (a arrivals) Clone() credentials.TransportCredentials {
	return arrivals{a.TransportCredentials.Clone(), a.ca}
}
