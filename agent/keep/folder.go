package keep

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A Folder keeps small values by name, each in a JSON file of its own. Callers
// write a name one at a time.
type Folder struct {
	Dir string // made at the first write
}

const jsonExtension = ".json"

var errName = errors.New("no name for a file")

func (f Folder) file(name string) (string, error) {
	if name == "" || strings.HasPrefix(name, ".") || filepath.Base(name) != name {
		return "", fmt.Errorf("%q: %w", name, errName)
	}
	return filepath.Join(f.Dir, name+jsonExtension), nil
}

// Save puts the value in place of the one of that name, whole or not at all.
func (f Folder) Save(name string, v any) error {
	file, err := f.file(name)
	if err != nil {
		return err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	if err := replace(file, b, 0o600); err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	return nil
}

// ErrDamaged means that a value could not be read. It was put aside, so that
// there is none of that name any more.
var ErrDamaged = errors.New("it was damaged, and is put aside")

// Load reads the value of that name; found is false if there is none.
func (f Folder) Load(name string, v any) (found bool, err error) {
	file, err := f.file(name)
	if err != nil {
		return false, err
	}
	b, err := os.ReadFile(file) //nolint:gosec // a name in the agent's own folder
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, errors.Join(fmt.Errorf("read %s: %w: %w", name, ErrDamaged, err), os.Rename(file, file+".damaged"))
	}
	return true, nil
}

// Missing reports whether there is no value of that name.
func (f Folder) Missing(name string) bool {
	file, err := f.file(name)
	if err == nil {
		_, err = os.Lstat(file)
	}
	return errors.Is(err, os.ErrNotExist)
}

// Drop removes the value of that name; that there is none is what we wanted.
func (f Folder) Drop(name string) error {
	file, err := f.file(name)
	if err != nil {
		return err
	}
	if err := forget(file); err != nil {
		return fmt.Errorf("drop %s: %w", name, err)
	}
	return nil
}

// Names lists the values.
func (f Folder) Names() ([]string, error) {
	files, err := os.ReadDir(f.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range files {
		if name, ok := strings.CutSuffix(e.Name(), jsonExtension); ok && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	return names, nil
}
