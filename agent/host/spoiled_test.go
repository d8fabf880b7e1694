package host

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"curfew.internal/agent/enforce"
)

// A record that somebody spoiled is ours by its mark, and goes at the end.
func TestASpoiledRecordIsStillOurs(t *testing.T) {
	for name, spoil := range map[string]func(file string) error{
		"mode":  func(f string) error { return os.Chmod(f, 0o600) },
		"owner": func(f string) error { return os.Chown(f, 1, 1) },
		"uid 0": func(f string) error {
			return os.WriteFile(f, []byte(`{"userName":"cfw-ana","uid":0,"gid":0,"disposition":"regular","curfew":true}`), 0o644)
		},
		"a number as text": func(f string) error {
			return os.WriteFile(f, []byte(`{"userName":"cfw-ana","uid":"0","gid":0, "curfew": true}`), 0o644)
		},
		"half": func(f string) error {
			return os.WriteFile(f, []byte(`{"userName":"cfw-ana","curfew":true,`), 0o644)
		},
		"link": func(f string) error {
			return errors.Join(os.Rename(f, filepath.Dir(f)+"/../x"), os.Symlink("../x", f))
		},
		"link out of its file system": func(f string) error {
			return errors.Join(os.Rename(f, filepath.Dir(f)+"/../x"), os.Symlink("/proc/version", f))
		},
		"number": func(f string) error {
			n := filepath.Dir(f) + "/70007.user"
			return errors.Join(os.Remove(n), os.Symlink("cfw-ana.user", filepath.Dir(f)+"/70008.user"))
		},
		"another name": func(f string) error {
			return errors.Join(os.Rename(f, filepath.Dir(f)+"/70009.user"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := machine(t)
			converge(t, h, wanted())
			must(t, spoil(h.path(userdb, "cfw-ana.user")))
			seen, err := h.Observe(t.Context())
			must(t, err)
			for _, s := range enforce.Plan(enforce.State{}, seen) {
				if err := h.Apply(t.Context(), s); err != nil {
					t.Error(err)
				}
			}
			for _, n := range []string{"cfw-ana.user", "70007.user", "70008.user", "70009.user", "cfw-ana.group", "70007.group"} {
				if _, err := os.Stat(h.path(userdb, n)); err == nil {
					t.Errorf("%s outlives its grant", n)
				}
			}
		})
	}
}

// An administrator's link is not followed into being ours.
func TestAnAdministratorsLinkIsLeftAlone(t *testing.T) {
	h := machine(t)
	must(t, os.WriteFile(h.path("x"), []byte(`{"userName":"bob","uid":1000,"gid":1000}`), 0o644))
	must(t, os.Symlink("../../x", h.path(userdb, "bob.user")))
	must(t, os.Symlink("/dev/zero", h.path(userdb, "eve.user")))
	must(t, os.Symlink("eve.user", h.path(userdb, "1001.user")))
	seen, err := h.Observe(t.Context())
	if err != nil || len(seen) > 0 {
		t.Error(seen, err)
	}
	if err := h.Apply(t.Context(), enforce.Step{Op: enforce.Remove, Thing: enforce.Thing{Kind: enforce.Account, Name: "bob"}}); !errors.Is(err, ErrNotOurs) {
		t.Error(err)
	}
}

// Nothing that somebody puts in a folder of ours blocks the look at it, or
// hides the rest.
func TestWhatIsNoFileHidesNothing(t *testing.T) {
	for name, spoil := range map[string]func(h *Host) error{
		"fifo as a scope":   func(h *Host) error { return unix.Mkfifo(h.path(scopeDir, "x"), 0o600) },
		"folder as a scope": func(h *Host) error { return os.Mkdir(h.path(scopeDir, "x"), 0o700) },
		"fifo as a record":  func(h *Host) error { return unix.Mkfifo(h.path(userdb, "x.user"), 0o644) },
		"fifo as a rule":    func(h *Host) error { return unix.Mkfifo(h.path(sudoersDir, "x"), 0o440) },
		"huge principals": func(h *Host) error {
			return errors.Join(os.WriteFile(h.path(principals, "x"), nil, 0o644), os.Truncate(h.path(principals, "x"), 1<<40))
		},
		"file for a folder": func(h *Host) error { return asFile(h.path(managedDir)) },
		"file for homes":    func(h *Host) error { return asFile(h.path(homeDir)) },
		"link for rules": func(h *Host) error {
			return errors.Join(os.Rename(h.path(sudoersDir), h.path("away")), os.Symlink("../../away", h.path(sudoersDir)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := machine(t)
			converge(t, h, wanted())
			must(t, spoil(h))
			converge(t, h, wanted())
			converge(t, h, enforce.State{})
		})
	}
}

func asFile(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) }

// What could not be looked at does not keep what was seen from its removal.
func TestWhatWasSeenIsToldWithWhatWasNot(t *testing.T) {
	h := machine(t)
	converge(t, h, wanted())
	must(t, asFile(h.path(userdb)))
	seen, err := h.Observe(t.Context())
	if err == nil {
		t.Error("a folder of the host's that is a file is no error")
	}
	if _, ok := seen[enforce.Thing{Kind: enforce.SudoRule, Name: "g-abcdefghijklmnop"}]; !ok {
		t.Error(seen)
	}
}

func TestFoldersHaveTheirModesUnderTheUnitsUmask(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	h := machine(t)
	converge(t, h, wanted())
	for _, f := range append(folders, folder{principals + "/cfw-ana", 0o644}, folder{userdb + "/cfw-ana.user", 0o644}) {
		info, err := os.Stat(h.path(f.dir))
		if err != nil || info.Mode().Perm() != f.mode {
			t.Errorf("%s: %v %v", f.dir, info.Mode(), err)
		}
	}
}

// Root can have the kernel refuse each change of a file or folder, root's too.
func TestWhatNobodyMayChangeGoesAllTheSame(t *testing.T) {
	const id, immutable, appended = "g-abcdefghijklmnop", 0x10, 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL
	set := func(file string, flag uint32, on bool) error {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		if flags &^= flag; on {
			flags |= flag
		}
		return errors.Join(err, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags)))
	}
	flag := func(t *testing.T, file string, flag uint32) {
		t.Helper()
		must(t, set(file, flag, true))
		t.Cleanup(func() { _ = set(file, flag, false) }) // gone, if all is well
	}
	for name, spoil := range map[string]func(t *testing.T, h *Host){
		"a rule": func(t *testing.T, h *Host) { t.Helper(); flag(t, h.path(sudoersDir, id), immutable) },
		"a rule of hers that is wider": func(t *testing.T, h *Host) {
			t.Helper()
			must(t, os.WriteFile(h.path(sudoersDir, "hers"), []byte("nobody ALL=(ALL) NOPASSWD: ALL\n"), 0o440))
			must(t, os.WriteFile(h.path(sudoersDir, id), []byte("nobody ALL=(ALL) NOPASSWD: ALL\n"), 0o440))
			flag(t, h.path(sudoersDir, "hers"), appended)
			flag(t, h.path(sudoersDir, id), immutable)
		},
		"a record":    func(t *testing.T, h *Host) { t.Helper(); flag(t, h.path(userdb, "cfw-ana.user"), immutable) },
		"all records": func(t *testing.T, h *Host) { t.Helper(); flag(t, h.path(userdb), immutable) },
		"all rules":   func(t *testing.T, h *Host) { t.Helper(); flag(t, h.path(sudoersDir), appended) },
		"what is in a home": func(t *testing.T, h *Host) {
			t.Helper()
			home := h.path(homeDir, "cfw-ana")
			must(t, os.MkdirAll(home+"/in", 0o700))
			must(t, os.WriteFile(home+"/in/f", nil, 0o600))
			for _, f := range []string{home + "/in/f", home + "/in", home} {
				flag(t, f, immutable)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := machine(t)
			converge(t, h, wanted())
			spoil(t, h)
			converge(t, h, wanted())
			converge(t, h, enforce.State{})
			converge(t, h, wanted())
			spoil(t, h)
			converge(t, h, enforce.State{})
		})
	}
}
