package policy

import (
	"fmt"
	"io"
	"io/fs"
	"path"
)

// Read reads a policy folder: its files that end in .yaml, but hidden ones,
// which editors leave behind. Only regular files are opened, also behind
// links: whoever reads any other could wait for ever. Folders are passed over.
func Read(folder fs.FS) (Policy, []Problem, error) {
	entries, err := fs.ReadDir(folder, ".")
	if err != nil {
		return Policy{}, nil, fmt.Errorf("read policy folder: %w", err)
	}
	files := map[string][]byte{}
	var odd []Problem
	for _, e := range entries {
		name := e.Name()
		if path.Ext(name) != ".yaml" || name[0] == '.' || e.IsDir() {
			continue
		}
		info, err := fs.Stat(folder, name)
		if err != nil {
			return Policy{}, nil, fmt.Errorf("read policy: %w", err)
		}
		if !info.Mode().IsRegular() {
			odd = append(odd, Problem{File: name, Line: 1, Column: 1, Text: "no regular file", Fix: "remove it, or give it another ending"})
			continue
		}
		if files[name], err = bounded(folder, name); err != nil {
			return Policy{}, nil, fmt.Errorf("read policy: %w", err)
		}
	}
	p, problems := Parse(files)
	if len(odd) > 0 {
		p = Policy{}
	}
	return p, append(odd, problems...), nil
}

// bounded reads a file, or enough of it to see that it is too long.
func bounded(folder fs.FS, name string) ([]byte, error) {
	f, err := folder.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was read alone
	return io.ReadAll(io.LimitReader(f, maxBytes+1))
}
