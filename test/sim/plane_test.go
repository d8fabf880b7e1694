package sim

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing/synctest"
	"time"

	"curfew.internal/controlplane/fleet"
	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
	"curfew.internal/wire/uplink"
)

// The control plane's real code for streams (controlplane/fleet) stands on a
// simulated database. What a host is known by is made once, with real keys.
var (
	ca       *fleet.CA
	hostLeaf *x509.Certificate
	enrolled string // identity of the host's enrolment
)

// enrolling is a database that takes one host.
type enrolling struct{ fleet.Store }

func (enrolling) UseJoinToken(_ context.Context, _ [32]byte, h roster.Host, _ time.Time) (roster.Host, error) {
	enrolled = h.Identity
	return h, nil
}

// enrol makes the CA and the host's certificate.
func enrol() (err error) {
	dir, err := os.MkdirTemp("/dev/shm", "curfew-sim-ca-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	at := rightClock{&world{}}
	if ca, err = fleet.OpenCA(dir, fleetName, at); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	s := fleet.New(fleet.Config{CA: ca, Store: enrolling{}, SSHCA: func() string { return "" }, Clock: at})
	r, err := s.Enrol(context.Background(), &uplink.EnrolRequest{Name: host, Csr: csr, ReceiptKey: public(receiptKey)})
	if err != nil {
		return err
	}
	hostLeaf, err = x509.ParseCertificate(r.GetCertificate())
	return err
}

// serve starts the control plane's program.
func (w *world) serve() {
	w.fleet = fleet.New(fleet.Config{CA: ca, Store: database{w}, Clock: ticking{rightClock{w}, w, "plane"}})
}

// restart ends the control plane's program and starts it again.
func (w *world) restart() {
	w.tell("the control plane restarts")
	for _, c := range w.cables {
		c.plane.leave(nil, c.plane.some())
	}
	synctest.Wait()
	w.serve()
}

// A shelf is what the database holds of the host's records.
type shelf struct {
	names []string            // of outboxes, as they came
	by    map[string][][]byte // by outbox
}

func (s shelf) clone() shelf { return shelf{slices.Clone(s.names), maps.Clone(s.by)} }

// all is every entry, in the order in which it came.
func (s shelf) all() [][]byte {
	var all [][]byte
	for _, name := range s.names {
		all = append(all, s.by[name]...)
	}
	return all
}

// database is what controlplane/store does, in memory. (The real one on SQLite
// would take a hundred times as long.)
type database struct{ *world }

var errFull = errors.New("the database is full")

func (database) UseJoinToken(context.Context, [32]byte, roster.Host, time.Time) (roster.Host, error) {
	return roster.Host{}, roster.ErrUnknown
}

func (database) Host(_ context.Context, name string) (roster.Host, error) {
	return roster.Host{Name: name, Identity: enrolled}, nil
}

func (d database) State(context.Context, string) (roster.State, error) {
	s := d.server
	return roster.State{Revision: s.revision, Keyring: ring, Set: s.current, Ahead: s.ahead > 0}, nil
}

// KeepRecords keeps what goes on from what is kept, and passes over the rest.
// Rosters is for fleets that have one: this has none.
func (database) Rosters(context.Context, uint64, int) ([][]byte, error) { return nil, nil }

func (d database) KeepRecords(_ context.Context, _, outbox string, records []roster.Record) (uint64, error) {
	s := d.server
	kept := s.shelf.by[outbox]
	if len(records) > 0 && s.full {
		return 0, errFull
	}
	if !slices.Contains(s.shelf.names, outbox) {
		s.shelf.names = append(s.shelf.names, outbox)
	}
	for _, r := range records {
		switch upTo := uint64(len(kept)); {
		case r.Seq <= upTo:
		case r.Seq > upTo+1:
			return 0, fmt.Errorf("record %d after %d", r.Seq, upTo)
		default:
			kept = append(kept, r.Entry)
		}
	}
	s.shelf.by[outbox] = kept
	return uint64(len(kept)), nil
}

func (d database) Seen(_ context.Context, _ string, _ time.Time, said roster.Host) error {
	d.server.hostKeeps(said.Applied)
	return nil
}

func (d database) Applied(_ context.Context, _ string, r roster.Report, _ time.Time) error {
	d.server.hostKeeps(r.Revision)
	d.server.report = r
	return nil
}

// hostKeeps notes a host that keeps what this database has not given.
func (s *server) hostKeeps(revision uint64) {
	if revision > max(s.revision, s.ahead) {
		s.ahead = revision
	}
}

// lose notes what was kept since a backup to which the database is set back:
// the host may have dropped it since.
func (s *server) lose() {
	for name, kept := range s.shelf.by {
		for _, e := range kept[min(len(kept), len(s.copied.by[name])):] {
			s.lost[string(e)] = true
		}
	}
}

// checkTold: with no fault left, the control plane knows how the host is.
func (w *world) checkTold() error {
	if w.session == nil || !w.fleet.Connected(host) {
		return errors.New("there is no stream")
	}
	if r, s := w.server.report, w.server; r.Revision != s.revision || r.Refused != "" || !r.Settled {
		return fmt.Errorf("the host is settled at revision %d, and the control plane knows of %+v", s.revision, r)
	}
	return w.checkArrived()
}

// checkArrived: the control plane has every entry that the host kept, each once
// and in order. What a database lost that was set back may be missing, if a gap
// says so.
func (w *world) checkArrived() error {
	got, missing, gaps := w.server.shelf.all(), 0, 0
	for n, e := range w.said {
		b := e.Bytes()
		for len(got) > 0 && !bytes.Equal(got[0], b) && isGap(got[0]) {
			got, gaps = got[1:], gaps+1
		}
		switch {
		case len(got) > 0 && bytes.Equal(got[0], b):
			got = got[1:]
		case w.server.lost[string(b)]:
			missing++
		default:
			return fmt.Errorf("entry %d of %d was kept, and did not arrive in its place", n+1, len(w.said))
		}
	}
	for len(got) > 0 && isGap(got[0]) {
		got, gaps = got[1:], gaps+1
	}
	if len(got) > 0 {
		return fmt.Errorf("%d entries arrived that nobody kept, or twice", len(got))
	}
	if (missing > 0) != (gaps > 0) {
		return fmt.Errorf("%d entries are missing, and %d gaps say so", missing, gaps)
	}
	return nil
}

func isGap(b []byte) bool {
	e, err := ledger.ParseEntry(b)
	return err == nil && e.Kind == ledger.Gap
}
