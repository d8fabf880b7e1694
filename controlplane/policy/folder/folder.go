// Package folder reads a policy from the folder that it is kept in.
//
// The test cases beside it are read in the same way, and are no policy.
// It is the one reader for the server and for both command lines, so that they
// give the same answer. What the files say is the policy's to judge.
package folder

import (
	"errors"
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
	files, odd, err := read(in)
	if err != nil {
		return policy.Policy{}, nil, fmt.Errorf("read policy: %w", err)
	}
	p, problems := policy.Parse(files)
	if len(odd) > 0 {
		p = policy.Policy{}
	}
	return p, append(odd, problems...), nil
}

// Tests reads the test cases that are kept beside a policy, in its folder
// tests: no policy is read from there. Without one there are none.
func Tests(in fs.FS) (map[string][]byte, []policy.Problem, error) {
	if _, err := fs.Stat(in, "tests"); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	sub, err := fs.Sub(in, "tests")
	if err != nil {
		return nil, nil, fmt.Errorf("read tests: %w", err)
	}
	found, odd, err := read(sub)
	if err != nil {
		return nil, nil, fmt.Errorf("read tests: %w", err)
	}
	files := map[string][]byte{}
	for name, b := range found {
		files["tests/"+name] = b
	}
	for i := range odd {
		odd[i].File = "tests/" + odd[i].File
	}
	return files, odd, nil
}

func read(in fs.FS) (files map[string][]byte, odd []policy.Problem, err error) {
	entries, err := fs.ReadDir(in, ".")
	if err != nil {
		return nil, nil, err
	}
	files = map[string][]byte{}
	for _, e := range entries {
		name := e.Name()
		if path.Ext(name) != ".yaml" || name[0] == '.' || e.IsDir() {
			continue
		}
		info, err := fs.Stat(in, name)
		if err != nil {
			return nil, nil, err
		}
		if !info.Mode().IsRegular() {
			odd = append(odd, policy.Problem{File: name, Line: 1, Column: 1, Text: "no regular file", Fix: "remove it, or give it another ending"})
			continue
		}
		if files[name], err = bounded(in, name); err != nil {
			return nil, nil, err
		}
	}
	return files, odd, nil
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
