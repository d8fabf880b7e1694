package remains

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What others fill a folder with hides nothing of hers; and what she fills it
// with comes to be found whole by whoever removes what was found.
func TestOwnInACrowd(t *testing.T) {
	w := newWorld(t)
	fill := func(name string, n int, owner int) {
		for i := range n {
			file := w.path("tmp") + fmt.Sprintf("/%s%d", name, i)
			must(t, unix.Mknod(file, unix.S_IFREG|0o600, 0))
			must(t, unix.Lchown(file, owner, owner))
		}
	}
	fill("a", crowd, 0)
	fill("hers", 3, uid)
	fill("z", 600, 0)
	own := func() []Finding {
		found, skipped, err := w.Own(Session{Person: "cfw-ana", UID: uid, Since: time.Unix(1, 0)})
		if err != nil || len(skipped) > 0 {
			t.Error(skipped, err)
		}
		return found
	}
	if n := len(own()); n != 3 {
		t.Errorf("%d of 3 were found", n)
	}
	fill("more", Most+600, uid)
	all := 0
	for found := own(); len(found) > 0; found = own() {
		removed, left, err := w.Remove(t.Context(), found, TempFile)
		if len(left) > 0 || err != nil || len(found) > Most+512 {
			t.Fatal(len(left), len(found), err)
		}
		all += len(removed)
	}
	if all != Most+603 {
		t.Errorf("%d were removed", all)
	}
}
