package forward

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// picky takes events of OCSF, but for some.
type picky struct {
	mu      sync.Mutex // guards what follows
	refuses []uint64
	answer  int // to those
	away    int // requests that are answered with 503 first
	got     []uint64
}

var sequence = regexp.MustCompile(`"sequence":([0-9]+),`)

func (p *picky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away > 0 {
		p.away--
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	b, _ := io.ReadAll(r.Body)
	var ids []uint64
	for _, m := range sequence.FindAllStringSubmatch(string(b), -1) {
		id, _ := strconv.ParseUint(m[1], 10, 64)
		if slices.Contains(p.refuses, id) {
			w.WriteHeader(p.answer)
			return
		}
		ids = append(ids, id)
	}
	p.got = append(p.got, ids...)
}

func (p *picky) taken() []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

// without are the numbers of twenty events but some.
func without(not ...uint64) []uint64 {
	var all []uint64
	for id := uint64(1); id <= 20; id++ {
		if !slices.Contains(not, id) {
			all = append(all, id)
		}
	}
	return all
}

// What a receiver never takes keeps nothing that comes after from it, is told by
// its number, and is sent once the receiver takes it: also by another server.
func TestWhatAReceiverRefusesStandsAside(t *testing.T) {
	for name, p := range map[string]*picky{
		"one, as bad":                       {refuses: []uint64{7}, answer: http.StatusBadRequest},
		"the first, as too large":           {refuses: []uint64{1}, answer: http.StatusRequestEntityTooLarge},
		"as many in a row as may":           {refuses: []uint64{3, 4, 5, 6}, answer: http.StatusBadRequest},
		"here and there, by one that began": {refuses: []uint64{2, 9}, answer: http.StatusBadRequest, away: 20},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(p)
			defer server.Close()
			s := newShelf(20)
			target := Target{Form: FormOCSF, To: server.URL}
			log := s.forward(t, target)
			bad := p.refuses
			if got := p.taken(); !slices.Equal(got, without(bad...)) {
				t.Fatalf("%v came; %s", got, log)
			}
			for _, id := range bad {
				if !strings.Contains(log, fmt.Sprintf("stands aside for those after it; it is sent again now and then until it is taken\" target=siem entry=%d ", id)) {
					t.Errorf("nothing says that %d stands aside: %s", id, log)
				}
			}
			// A receiver that refuses it still is asked, and nothing else waits.
			s.add(1)
			s.forward(t, target)
			if got := p.taken(); !slices.Equal(got, append(without(bad...), 21)) {
				t.Fatalf("%v came", got)
			}
			p.mu.Lock()
			p.refuses, p.got = nil, nil
			p.mu.Unlock()
			s.add(1)
			s.forward(t, target)
			if got := p.taken(); !slices.Equal(got, append(slices.Clone(bad), 22)) {
				t.Errorf("%v came once it takes all", got)
			}
			s.forward(t, target)
			if got := p.taken(); len(got) != len(bad)+1 {
				t.Errorf("twice: %v", got)
			}
		})
	}
}

// One that takes nothing, or too little, is not to blame on an event: all waits
// in order, and is counted.
func TestAReceiverThatRefusesAllHasAllInOrder(t *testing.T) {
	for name, refuses := range map[string][]uint64{"all": without(), "more than may stand aside": {3, 4, 5, 6, 7}} {
		t.Run(name, func(t *testing.T) {
			p := &picky{refuses: refuses, answer: http.StatusBadRequest}
			server := httptest.NewServer(p)
			defer server.Close()
			s := newShelf(20)
			s.stuck(t, Target{Form: FormOCSF, To: server.URL}, refuses[0]-1)
			for i := range besides {
				if id, _, _ := s.Forwarded(t.Context(), fmt.Sprintf("siem/aside/%d", i)); id != 0 {
					t.Errorf("%d stands aside", id)
				}
			}
			p.mu.Lock()
			p.refuses = nil
			p.mu.Unlock()
			s.forward(t, Target{Form: FormOCSF, To: server.URL})
			if got := p.taken(); !slices.Equal(got, without()) {
				t.Errorf("%v came", got)
			}
		})
	}
}

// stuck forwards until the target was asked often enough that one could stand
// aside, and none does.
func (s *shelf) stuck(t *testing.T, target Target, upTo uint64) {
	t.Helper()
	target.Name = "siem"
	f, err := New("example", []Target{target}, s, hasty{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l := f.lines[0]
	for range 100 * patience {
		_, err = f.next(t.Context(), l)
		if l.refused.times >= 3*patience {
			break
		}
	}
	if err == nil || l.refused.times < 3*patience || l.upTo.Load() != upTo || f.Behind(20)["siem"] != 20-upTo {
		t.Fatalf("%v: it came to %d, and is %d behind", err, l.upTo.Load(), f.Behind(20)["siem"])
	}
}

// A crash between the two things that are kept has nothing stand aside twice.
func TestACrashHasNothingStandAsideTwice(t *testing.T) {
	p := &picky{refuses: []uint64{7}, answer: http.StatusBadRequest}
	server := httptest.NewServer(p)
	defer server.Close()
	s := newShelf(20)
	if err := s.KeepForwarded(t.Context(), "siem/aside/2", 7); err != nil {
		t.Fatal(err)
	}
	s.forward(t, Target{Form: FormOCSF, To: server.URL})
	for i := range besides {
		if id, _, _ := s.Forwarded(t.Context(), fmt.Sprintf("siem/aside/%d", i)); (id == 7) != (i == 2) {
			t.Errorf("%d stands in place %d", id, i)
		}
	}
}
