package lab

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// hierarchies are the trees of control groups in which a systemd keeps its
// units: the unified one, and the old one of that name where there is one.
func hierarchies(mountinfo string) []string {
	var tops []string
	for line := range strings.Lines(mountinfo) {
		before, after, _ := strings.Cut(line, " - ")
		mount, kind := strings.Fields(before), strings.Fields(after)
		if len(mount) < 5 || len(kind) < 3 {
			continue
		}
		if kind[0] == "cgroup2" || kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), "name=systemd") {
			tops = append(tops, mount[4])
		}
	}
	return tops
}

// groups makes control groups of this name. Hosts that shared one would find
// each other's processes in the groups of their units.
func groups(name string) ([]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var made []string
	for _, top := range hierarchies(string(b)) {
		dir := filepath.Join(top, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		made = append(made, dir)
	}
	return made, nil
}

// removeGroups takes away the control groups whose names match, once nothing
// is in them.
func removeGroups(ctx context.Context, pattern string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	return Until(ctx, "the end of the control groups "+pattern, func() error {
		var errs []error
		for _, top := range hierarchies(string(b)) {
			tops, err := filepath.Glob(filepath.Join(top, pattern))
			errs = append(errs, err)
			for _, dir := range tops {
				errs = append(errs, removeGroup(dir))
			}
		}
		return errors.Join(errs...)
	})
}

func removeGroup(top string) error {
	var dirs []string
	err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, name)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if err := os.Remove(dir); err != nil {
			return err
		}
	}
	return nil
}
