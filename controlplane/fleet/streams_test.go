package fleet

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"curfew.internal/wire/uplink"
)

// A second stream is refused while the first answers, before anything that it
// says counts; it is taken if the first is half open.
func TestSecondStream(t *testing.T) {
	r := newRig(t)
	r.server.Proof = time.Second
	cert := r.certificate(r.ca, "db1", "id")
	first := r.connect(r.client(cert), hello)
	r.next(first)
	second := r.connect(r.client(cert), hello, records)
	refused := make(chan error, 1)
	go func() { refused <- last(second) }()
	for answered := false; !answered; {
		if r.next(first).GetState() != nil { // the proof asked for
			answered = first.Send(&uplink.Up{Says: &uplink.Up_Applied{Applied: &uplink.Applied{Revision: 1}}}) == nil
		}
	}
	r.wantCode("second", <-refused, codes.AlreadyExists)
	if r.store.kept != 0 {
		t.Error("the second stream's records count")
	}

	third := r.connect(r.client(cert), hello)
	r.next(third) // the first does not answer
	r.wantCode("half-open first", last(first), codes.Aborted)
	if !r.server.Connected("db1") {
		t.Error("third is not the host's")
	}
	r.server.Drop("db1")
	r.wantCode("dropped", last(third), codes.PermissionDenied)
}

// A host that does not read holds up nobody else, and not the server's end.
func TestSlowHost(t *testing.T) {
	r := newRig(t)
	slow := r.connect(r.client(r.certificate(r.ca, "db1", "id")), hello)
	r.next(slow)
	quick := r.connect(r.client(r.certificate(r.ca, "web1", "id")), hello)
	for n := uint64(2); n < 20; n++ {
		r.store.put(n, 1<<20)
		r.server.Changed("db1", "web1")
		for {
			if s := r.next(quick).GetState(); s != nil && len(s.GetSet()) == 1<<20 {
				break
			}
		}
	}
	r.stop()
}
