package watch

import (
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"curfew.internal/bpf"
	"curfew.internal/ledger"
)

// That the kernel tells them is tried in test/vm.
func TestNamesAreToldByThePlaceThatMatters(t *testing.T) {
	for _, tt := range []struct {
		name         string
		did          bpf.WatchDid
		number       uint32
		to, from     string
		object, text string
	}{
		{"a rename", bpf.WatchDidDID_RENAME, 0, "/etc/x", "/tmp/x", "/etc/x", "put what was /tmp/x at /etc/x (rename): device 8:1, inode 42"},
		{"a rename away", bpf.WatchDidDID_RENAME, bpf.FromAlone, "/tmp/x", "/etc/x", "/etc/x", "took away /etc/x: it is /tmp/x now (rename): device 8:1, inode 42"},
		{"an exchange", bpf.WatchDidDID_RENAME, unix.RENAME_EXCHANGE, "/etc/x", "/tmp/x", "/etc/x", "put what was /tmp/x at /etc/x, and the other way round (exchange)"},
		{"an exchange from the other side", bpf.WatchDidDID_RENAME, unix.RENAME_EXCHANGE | bpf.FromAlone, "/tmp/x", "/etc/x", "/etc/x", "put what was /tmp/x at /etc/x, and the other way round (exchange)"},
		{"a link", bpf.WatchDidDID_LINK, 0, "/etc/x", "/tmp/x", "/etc/x", "put another name at /etc/x, of /tmp/x (hard link): device 8:1, inode 42"},
		{"a link outside", bpf.WatchDidDID_LINK, bpf.FromAlone, "/tmp/x", "/etc/x", "/etc/x", "gave /etc/x another name, /tmp/x (hard link): device 8:1, inode 42"},
		{"a symbolic link", bpf.WatchDidDID_SYMLINK, 0, "/etc/x", "../tmp/x", "/etc/x", "put a symbolic link at /etc/x, to ../tmp/x"},
		{"a removal", bpf.WatchDidDID_REMOVE, 0, "/etc/x", "", "/etc/x", "took away /etc/x: device 8:1, inode 42"},
	} {
		d := bpf.WatchDeed{
			Head: bpf.WatchHead{Kind: uint32(bpf.WatchKindDEED), Session: 7, Seq: 1}, Dev: 8<<20 | 1, Ino: 42,
			What: uint32(tt.did), Number: tt.number, First: uint16(len(tt.to)), Second: uint16(len(tt.from)),
		}
		e, whole, err := newDecoder().read(append(bytesOf(d, unsafe.Offsetof(d.Text)), tt.to+tt.from...), time.Unix(0, 0))
		if err != nil || !whole || e.Kind != ledger.Named || e.Object != tt.object || e.Text != tt.text {
			t.Errorf("%s: %v %q %q %v", tt.name, e.Kind, e.Object, e.Text, err)
		}
	}
}

func TestDatagramsAreToldByTheirPlace(t *testing.T) {
	d := bpf.WatchDeed{
		Head: bpf.WatchHead{Kind: uint32(bpf.WatchKindDEED), Session: 7, Seq: 1}, What: uint32(bpf.WatchDidDID_SEND),
		Number: unix.IPPROTO_UDP, Family: unix.AF_INET, Port: 53 << 8, Address: [16]byte{192, 0, 2, 1},
	}
	e, whole, err := newDecoder().read(bytesOf(d, unsafe.Offsetof(d.Text)), time.Unix(0, 0))
	if err != nil || !whole || e.Kind != ledger.Connect || e.Object != "udp://192.0.2.1:53" || e.Text != "sent datagrams to udp://192.0.2.1:53" {
		t.Errorf("%v %q %q %v", e.Kind, e.Object, e.Text, err)
	}
}
