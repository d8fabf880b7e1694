package fleet

import (
	"context"
	"errors"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/uplink"
)

// ErrRefused means that what a host handed in is not taken, now or later.
var ErrRefused = errors.New("refused")

// Terminals keeps recordings, and knows what is to be said of sessions.
type Terminals interface {
	// KeepTerminal keeps a segment for good. The same again changes nothing.
	KeepTerminal(ctx context.Context, host string, statement, packed []byte) error
	Sessions(ctx context.Context, host string) (roster.Sessions, error)
}

// noTerminals takes no recordings.
type noTerminals struct{}

func (noTerminals) KeepTerminal(context.Context, string, []byte, []byte) error {
	return errors.New("this server keeps no recordings")
}

func (noTerminals) Sessions(context.Context, string) (roster.Sessions, error) {
	return roster.Sessions{}, nil
}

// KeepTerminal takes a segment of a recording.
func (s *Server) KeepTerminal(ctx context.Context, m *uplink.TerminalSegment) (*uplink.TerminalKept, error) {
	h, _, err := s.who(ctx)
	if err != nil {
		return nil, err
	}
	err = s.Terminals.KeepTerminal(ctx, h.Name, m.GetStatement(), m.GetData())
	switch {
	case errors.Is(err, ErrRefused):
		s.Log.ErrorContext(ctx, "alert: a host handed in a recording that does not count", "host", h.Name, "err", err)
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case err != nil:
		s.Log.ErrorContext(ctx, "recording not kept", "host", h.Name, "err", err)
		return nil, status.Error(codes.Unavailable, "the control plane has a problem of its own")
	}
	return &uplink.TerminalKept{}, nil
}

// sessions says what there is to say of the host's sessions, if that is
// another than was sent.
func (st *stream) sessions(ctx context.Context, sent roster.Sessions) (roster.Sessions, error) {
	v, err := st.Terminals.Sessions(ctx, st.host.Name)
	if err != nil {
		return sent, st.internal(ctx, err)
	}
	if slices.Equal(v.Watched, sent.Watched) && maps.Equal(v.Ended, sent.Ended) {
		return sent, nil
	}
	m := &uplink.Sessions{Watched: v.Watched}
	for _, id := range slices.Sorted(maps.Keys(v.Ended)) {
		m.Ended = append(m.Ended, &uplink.EndedSession{Session: id, By: v.Ended[id]})
	}
	return v, st.duplex.Send(&uplink.Down{Says: &uplink.Down_Sessions{Sessions: m}})
}
