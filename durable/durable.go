// Package durable makes names of files outlive a loss of power.
package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Names makes what was created, renamed or removed in the folder last: syncing
// a file syncs its bytes, and not its name (fsync(2)).
func Names(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return fmt.Errorf("sync names: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
