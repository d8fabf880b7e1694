// Package folder reads a policy from the folder that it is kept in.
//
// It is the one reader for the server and for both command lines, so that they
// give the same answer. What the files say is the policy's to judge.
package folder

import (
	"fmt"
	"io"
	"io/fs"
	"path"

	"curfew.internal/controlplane/policy"
)

// Read reads a folder: its files that end in .yaml, but hidden ones,
// which editors leave behind. Only regular files are opened, also behind
// links: whoever reads any other could wait for ever. Folders are passed over.
func Read(in fs.FS) (policy.Policy, []policy.Problem, error) {
	entries, err := fs.ReadDir(in, ".")
	if err != nil {
		return policy.Policy{}, nil, fmt.Errorf("read policy folder: %w", err)
	}
	files := map[string][]byte{}
	var odd []policy.Problem
	for _, e := range entries {
		name := e.Name()
		if path.Ext(name) != ".yaml" || name[0] == '.' || e.IsDir() {
			continue
		}
		info, err := fs.Stat(in, name)
		if err != nil {
			return policy.Policy{}, nil, fmt.Errorf("read policy: %w", err)
		}
		if !info.Mode().IsRegular() {
			odd = append(odd, policy.Problem{File: name, Line: 1, Column: 1, Text: "no regular file", Fix: "remove it, or give it another ending"})
			continue
		}
		if files[name], err = bounded(in, name); err != nil {
			return policy.Policy{}, nil, fmt.Errorf("read policy: %w", err)
		}
	}
	p, problems := policy.Parse(files)
	if len(odd) > 0 {
		p = policy.Policy{}
	}
	return p, append(odd, problems...), nil
}

// bounded reads a file, or enough of it to see that it is too long.
func bounded(in fs.FS, name string) ([]byte, error) {
	f, err := in.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	return io.ReadAll(io.LimitReader(f, policy.MaxBytes+1))
}
