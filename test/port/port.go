// Package port finds addresses that a program under test is to listen on.
package port

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Ports from here on are no port of a service that is well known, and up to
// there none that the kernel gives to who asks for any
// (net.ipv4.ip_local_port_range in ip(7): from 32768).
const (
	from = 20000
	upto = 32000
)

// held are the marks of what was given, until this program ends.
var held struct {
	sync.Mutex
	marks []net.Listener
}

// Free is an address of the loopback interface, as host:port, that nobody
// listens on. No other call gives it again while this program runs, here or in
// another program of the same network namespace: each marks its ports by a
// socket with an abstract name (unix(7)).
func Free(ctx context.Context) (string, error) {
	held.Lock()
	defer held.Unlock()
	for _, offset := range rand.Perm(upto - from) {
		n := strconv.Itoa(from + offset)
		mark, err := new(net.ListenConfig).Listen(ctx, "unix", "@curfew-test-port-"+n)
		if err != nil {
			continue // another's
		}
		address := net.JoinHostPort("127.0.0.1", n)
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			_ = mark.Close()
			continue // of a program that does not ask here
		}
		held.marks = append(held.marks, mark)
		return address, l.Close()
	}
	return "", errors.New("no port is free")
}
