package keep

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// revisionName names the file that says which set this host held last, beside
// the sessions: an older file of grants that somebody puts back on the disk,
// between two lives of the agent, does not bring back what was revoked. It
// lasts until the host is started again.
const revisionName = "revision"

// A heldSet is a revision and whose it is: a host that joins another fleet
// begins anew.
type heldSet struct {
	Of       string `json:"of"`
	Revision uint64 `json:"revision"`
}

// of tells the sets of this host in this fleet from all others.
func (k *Keep) of() string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%q %q", k.Fleet, k.Host) // never fails, hash.Hash
	for _, root := range k.Roots {
		h.Write(root)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// loadHeld is the revision that was held last since the host started; zero if
// that is not known.
func (k *Keep) loadHeld() uint64 {
	if k.Config.Run == "" {
		return 0
	}
	var s heldSet
	if _, err := (Folder{Dir: k.Config.Run}).Load(revisionName, &s); err != nil {
		k.Log.Error("which grant set was held last cannot be read", "err", err)
	}
	if s.Of != k.of() {
		return 0
	}
	return s.Revision
}

func (k *Keep) saveHeld() error {
	if k.Config.Run == "" || k.lock == nil {
		return nil
	}
	if err := (Folder{Dir: k.Config.Run}).Save(revisionName, heldSet{Of: k.of(), Revision: k.state.revision}); err != nil {
		return fmt.Errorf("write down which grant set is held: %w", err)
	}
	return nil
}
