// Package gate bounds the connections of a server, so that nobody takes the
// places of all.
//
// It knows where a connection comes from and no more, until somebody who
// checked says whose it is. It reads and writes nothing.
package gate

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"curfew.internal/clock"
)

// perName is how many connections one who is known has at most: a host has its
// stream, and one for each of its people who waits at sudo.
const perName = 64

// A Listener takes connections, and keeps so many of strangers at once as it
// may. When there are more, the address that has most loses its newest: a
// whole fleet that comes from one address is let in from its beginning, and an
// address that holds what it can stands in the way of itself alone.
type Listener struct {
	net.Listener
	// Strangers is how many connections there are at most of which nobody has
	// said whose they are.
	Strangers int
	// Stay is how long such a connection lasts at most. Optional; as long as it
	// likes.
	Stay  time.Duration
	Clock clock.Clock
	// Turns are had by those for whom there is work to do; see [Turns].
	Turns Turns

	mu        sync.Mutex // guards what follows, and what connections say of themselves
	strangers map[string][]*conn
	count     int // of strangers
	known     map[string]int
	closed    bool
}

// A conn stands in the line of its place, or is its name's.
type conn struct {
	net.Conn
	at    *Listener
	place string

	over chan struct{} // closed once it is closed

	until time.Time // zero: there is no such time
	name  string    // empty: a stranger's
	gone  bool
}

// Accept implements [net.Listener].
func (l *Listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: raw, at: l, place: Place(raw.RemoteAddr().String()), over: make(chan struct{})}
		if l.Stay > 0 {
			c.until = l.Clock.Now().Wall.Add(l.Stay)
			_ = c.SetDeadline(time.Time{}) // refused by a connection that is over, which reading finds
		}
		much := l.enter(c)
		if much != nil {
			_ = much.Close() // whose it was may come again
		}
		if much != c {
			return c, nil
		}
	}
}

// enter puts c into its line, and returns which connection is one too many.
func (l *Listener) enter(c *conn) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.strangers == nil {
		l.strangers, l.known = map[string][]*conn{}, map[string]int{}
	}
	l.strangers[c.place] = append(l.strangers[c.place], c)
	l.count++
	if l.closed {
		return c
	}
	if l.count <= l.Strangers {
		return nil
	}
	longest := l.strangers[c.place]
	for _, line := range l.strangers {
		if len(line) > len(longest) {
			longest = line
		}
	}
	return longest[len(longest)-1]
}

// leave takes c out of where it stands, once.
func (l *Listener) leave(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.gone {
		return
	}
	c.gone = true
	close(c.over)
	if c.name == "" {
		l.step(c)
		return
	}
	if l.known[c.name]--; l.known[c.name] == 0 {
		delete(l.known, c.name)
	}
}

// step takes c out of its line.
func (l *Listener) step(c *conn) {
	line := l.strangers[c.place]
	if i := slices.Index(line, c); i >= 0 {
		line = slices.Delete(line, i, i+1)
		l.count--
	}
	if len(line) == 0 {
		delete(l.strangers, c.place)
		return
	}
	l.strangers[c.place] = line
}

// Known says whose the connection is, now that it was checked: it is no
// stranger's any more, and the next deadline is as far away as it likes. It
// reports whether the connection may go on: nobody has too many.
func (c *conn) Known(name string) bool {
	l := c.at
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.gone || c.name != "" || l.known[name] >= perName {
		return false
	}
	l.step(c)
	c.name, c.until = name, time.Time{}
	l.known[name]++
	return true
}

// Turn waits until it is the connection's turn to be worked for; done gives it
// back. There is none once the connection is closed, or after so long.
func (c *conn) Turn(within time.Duration) (done func(), ok bool) {
	return c.at.Turns.take(c.place, c.over, c.at.Clock.After(within))
}

// Close implements [net.Listener]. Where there are turns, strangers go with it:
// whoever serves them waits for nobody's turn. Elsewhere, what runs may finish.
func (l *Listener) Close() error {
	if l.Turns.Most <= 0 {
		return l.Listener.Close()
	}
	l.mu.Lock()
	l.closed = true
	var all []*conn
	for _, line := range l.strangers {
		all = append(all, line...)
	}
	l.mu.Unlock()
	for _, c := range all {
		_ = c.Close() // nobody had said whose it is
	}
	return l.Listener.Close()
}

// Close implements [net.Conn].
func (c *conn) Close() error {
	c.at.leave(c)
	return c.Conn.Close()
}

// SetDeadline implements [net.Conn]: nobody gives a stranger longer than she
// may stay.
func (c *conn) SetDeadline(t time.Time) error { return c.Conn.SetDeadline(c.within(t)) }

// SetReadDeadline implements [net.Conn].
func (c *conn) SetReadDeadline(t time.Time) error { return c.Conn.SetReadDeadline(c.within(t)) }

// SetWriteDeadline implements [net.Conn].
func (c *conn) SetWriteDeadline(t time.Time) error { return c.Conn.SetWriteDeadline(c.within(t)) }

func (c *conn) within(t time.Time) time.Time {
	c.at.mu.Lock()
	defer c.at.mu.Unlock()
	if !c.until.IsZero() && (t.IsZero() || t.After(c.until)) {
		return c.until
	}
	return t
}

// Place is whom an address stands for. Whoever has an IPv6 address has all
// others of its last 64 bits as well.
func Place(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if ip = ip.Unmap(); ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip.WithZone(""), 64).Masked().String()
}
