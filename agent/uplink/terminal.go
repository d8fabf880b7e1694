package uplink

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"curfew.internal/wire/uplink"
)

// errAway means that there is no connection now.
var errAway = errors.New("the control plane is away")

// ErrRefused means that the control plane does not take what it was handed,
// now or later.
var ErrRefused = errors.New("the control plane refuses it")

// use makes the connection the one that other calls go by.
func (c *Client) use(conn *grpc.ClientConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = conn
}

// keepWithin is how long the control plane may take over one segment.
const keepWithin = 20 * time.Second

// KeepTerminal hands a segment of a terminal's recording to the control plane.
func (c *Client) KeepTerminal(ctx context.Context, statement, data []byte) error {
	c.mu.Lock()
	conn, connected := c.conn, c.connected
	c.mu.Unlock()
	if conn == nil || !connected {
		return errAway
	}
	m := &uplink.TerminalSegment{Statement: statement}
	if len(data) > 0 {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write(data)
		if err = errors.Join(err, z.Close()); err != nil {
			return err
		}
		m.Data = b.Bytes()
	}
	ctx, cancel := context.WithTimeout(ctx, keepWithin)
	defer cancel()
	_, err := uplink.NewUplinkClient(conn).KeepTerminal(ctx, m)
	if status.Code(err) == codes.InvalidArgument {
		return fmt.Errorf("%w: %s", ErrRefused, strings.ToValidUTF8(strings.ReplaceAll(status.Convert(err).Message(), "\n", ": "), ""))
	}
	return err
}
