package host

import (
	"os"
	"path/filepath"
)

// spellings is how many paths of one program are looked at.
const spellings = 8

// Spellings returns those of the paths that lead to the same program as the
// first, if that is one.
func (h *Host) Spellings(paths []string) []string {
	var first os.FileInfo
	var same []string
	for i, p := range paths[:min(len(paths), spellings)] {
		info, err := os.Stat(h.path(p))
		ok := err == nil && filepath.IsAbs(p) && info.Mode().IsRegular() && info.Mode()&0o111 != 0
		switch {
		case ok && i == 0:
			first = info
		case i == 0:
			return nil
		case !ok || !os.SameFile(first, info):
			continue
		}
		same = append(same, p)
	}
	return same
}
