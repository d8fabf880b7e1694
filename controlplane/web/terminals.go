package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"curfew.internal/cast"
	"curfew.internal/cast/screen"
	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
)

// terminalsView is the list of recordings, and the search in them.
type terminalsView struct {
	*api.ListTerminalsReply
	ID, Person, Host, Words string // as they were typed
}

func (s *Server) terminals(ctx context.Context, r *http.Request) (page, error) {
	v := terminalsView{ID: r.FormValue("id"), Person: r.FormValue("person"), Host: r.FormValue("host"), Words: strings.TrimSpace(r.FormValue("words"))}
	var err error
	v.ListTerminalsReply, err = s.API.ListTerminals(ctx, &api.ListTerminalsRequest{Id: v.ID, Person: v.Person, Host: v.Host, Words: v.Words})
	// A search is in the record: one that goes on by itself would fill it.
	return page{Name: "terminals", Title: "Terminals", Data: v, Still: v.Words != ""}, err
}

// terminalView is one recording.
type terminalView struct {
	*api.Terminal
	At   string // its path
	Text string // what it showed
	Cut  bool   // there is more than that
}

func (s *Server) terminal(ctx context.Context, r *http.Request) (page, error) {
	host, id := r.PathValue("host"), r.PathValue("id")
	found, err := s.API.ListTerminals(ctx, &api.ListTerminalsRequest{Id: id, Host: host, Limit: 1})
	if err != nil {
		return page{}, err
	}
	if len(found.Terminals) == 0 || found.Terminals[0].Id != id {
		return page{}, roster.Refuse(roster.Missing, "there is no such recording, or it is not yours to see")
	}
	t := found.Terminals[0]
	v := terminalView{Terminal: t, At: "/terminals/" + url.PathEscape(t.Host) + "/" + url.PathEscape(t.Id)}
	return page{Name: "terminal", Title: "Terminal of " + t.Person + " on " + t.Host, Data: v}, nil
}

// endSession ends the session of a terminal that somebody looks at.
func (s *Server) endSession(ctx context.Context, r *http.Request) (outcome, error) {
	host, id := r.PathValue("host"), r.PathValue("id")
	if r.PathValue("do") != "end" {
		return outcome{}, errNoDeed
	}
	_, err := s.API.EndHostSession(ctx, &api.EndHostSessionRequest{Host: host, Id: id, Why: strings.TrimSpace(r.PostFormValue("note"))})
	return outcome{to: "/terminals/" + url.PathEscape(host) + "/" + url.PathEscape(id)}, err
}

// mostText is how much of a recording's text is on a page, in bytes.
const mostText = 500_000

var errEnough = errors.New("it is enough")

// terminalText shows what a recording showed as text alone, once: a look at it
// is in the record, and one that goes on by itself would fill that.
func (s *Server) terminalText(w http.ResponseWriter, r *http.Request) {
	r.Header.Del("Accept")
	s.page(func(ctx context.Context, r *http.Request) (page, error) {
		p, err := s.terminal(ctx, r)
		v, ok := p.Data.(terminalView)
		if err != nil || !ok {
			return p, err
		}
		var text strings.Builder
		var plain cast.Plain
		err = s.API.Play(ctx, &api.ReplayTerminalRequest{Host: v.Host, Id: v.Id}, func(g ledger.Segment, data []byte) error {
			if g.End != "" {
				return nil // it has no data
			}
			_, events, broken := cast.Read(bytes.NewReader(data))
			for _, e := range events {
				switch e.Kind {
				case cast.Output:
					text.WriteString(plain.Text(e.Data))
				case cast.Marker:
					text.WriteString("\n[" + e.Data + "]\n")
				}
			}
			if text.Len() > mostText {
				return errEnough
			}
			return broken
		})
		v.Text, v.Cut = text.String(), errors.Is(err, errEnough)
		if v.Cut {
			v.Text, err = strings.ToValidUTF8(v.Text[:mostText], ""), nil
		}
		p.Name, p.Data, p.Still = "terminal-text", v, true
		return p, err
	})(w, r)
}

// A frame is a line of what the player reads.
type frame struct {
	At     float64             `json:"t"`
	Width  int                 `json:"w,omitempty"`
	Height int                 `json:"h,omitempty"`
	Rows   map[int][][2]string `json:"r,omitempty"` // of text and its style
	Cursor []int               `json:"c,omitempty"` // column, row; none: it is hidden
	Note   string              `json:"note,omitempty"`
	End    string              `json:"end,omitempty"`   // why the recording ended
	Error  string              `json:"error,omitempty"` // why there is no more
}

func frameOf(f screen.Frame) frame {
	v := frame{At: f.At.Seconds(), Width: f.Width, Height: f.Height, Note: f.Note, Rows: map[int][][2]string{}}
	for y, row := range f.Rows {
		spans := [][2]string{}
		for _, x := range row {
			spans = append(spans, [2]string{x.Text, x.Style})
		}
		v.Rows[y] = spans
	}
	if !f.Hidden {
		v.Cursor = []int{f.X, f.Y}
	}
	return v
}

// playWithin is how long a browser may take to read one part of a recording:
// it may be far behind while it plays.
const playWithin = time.Minute

// terminalFrames sends what a player shows, a line each; with follow, for as
// long as the recording goes on.
func (s *Server) terminalFrames(w http.ResponseWriter, r *http.Request) {
	v, err := s.visitor(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if !s.players.enter() {
		s.fail(w, r, roster.Refuse(roster.TooMuch, "too many recordings are played at once: try again in a minute"))
		return
	}
	defer s.players.leave()
	rc, out := http.NewResponseController(w), json.NewEncoder(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	send := func(frames ...frame) error {
		if err := rc.SetWriteDeadline(s.Clock.Now().Wall.Add(playWithin)); err != nil {
			return err
		}
		for _, f := range frames {
			if err := out.Encode(f); err != nil {
				return err
			}
		}
		return rc.Flush()
	}
	var d screen.Drawer
	m := &api.ReplayTerminalRequest{Host: r.PathValue("host"), Id: r.PathValue("id"), Follow: r.FormValue("follow") != ""}
	err = s.API.Play(v.ctx(), m, func(g ledger.Segment, data []byte) error {
		if g.End != "" {
			return send(frame{At: g.To.Sub(g.From).Seconds(), End: g.End})
		}
		h, events, broken := cast.Read(bytes.NewReader(data))
		var frames []frame
		for _, f := range d.Draw(h, events) {
			frames = append(frames, frameOf(f))
		}
		return errors.Join(send(frames...), broken)
	})
	if err != nil {
		_, text := s.refusal(v.ctx(), r, err)
		_ = send(frame{Error: text}) // she may have left
	}
}

// players bounds how many recordings are drawn at once: each takes some
// megabytes.
type players chan struct{}

const mostPlayers = 32

func (p players) enter() bool {
	select {
	case p <- struct{}{}:
		return true
	default:
		return false
	}
}

func (p players) leave() { <-p }
