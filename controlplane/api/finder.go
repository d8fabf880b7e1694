package api

import (
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"
	"google.golang.org/protobuf/types/known/durationpb"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

const (
	// heldLine is how much of a line is looked at together. What a program
	// paints by moves of the cursor has no line's end for megabytes.
	heldLine = 5 * maxLine
	// sharedLine is how much of that is looked at again with what follows: a
	// text that is found is no longer, in whichever letters it stands there.
	sharedLine = 4 * maxLine
)

// A finder looks for a text in what a terminal shows. A line that the terminal
// was given in pieces is one line.
type finder struct {
	text  string // its [roster.Letters]
	found []*api.TerminalLine
	rest  string // of the line that goes on
	told  bool   // it is found already
}

// look takes what is shown next.
func (f *finder) look(at time.Duration, shown string) {
	for {
		line, after, whole := strings.Cut(shown, "\n")
		f.rest += line
		if whole || len(f.rest) > heldLine {
			f.tell(at)
		}
		if !whole {
			if over := len(f.rest) - sharedLine; over > maxLine {
				f.rest = f.rest[over:]
			}
			return
		}
		f.rest, f.told, shown = "", false, after
	}
}

// tell shows what stands at the text, the first time in a line.
func (f *finder) tell(at time.Duration) {
	line := norm.NFC.String(strings.ToValidUTF8(f.rest, "")) // it may begin within a letter
	i := strings.Index(roster.Letters(line), f.text)
	if i < 0 || f.told || len(f.found) == maxLines {
		return
	}
	f.told = true
	from := 0
	if i+len(f.text) > maxLine { // in other letters it may be some bytes from there
		from = min(i, len(line))
	}
	shown := line[from:min(from+maxLine, len(line))]
	f.found = append(f.found, &api.TerminalLine{At: durationpb.New(at), Text: strings.ToValidUTF8(shown, "")})
}
