package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

func (h *Host) installSudoers(ctx context.Context) error {
	if b, err := os.ReadFile(h.path("etc/sudoers")); err != nil || !includesRules(string(b)) {
		return errors.Join(errors.New("sudo does not read /etc/sudoers.d here, so no rule of a grant would count: "+
			"add `@includedir /etc/sudoers.d` to /etc/sudoers"), err)
	}
	target := h.path(sudoersFile)
	old, oldErr := os.ReadFile(target) //nolint:gosec // by a fixed name
	f, err := renameio.NewPendingFile(target, renameio.WithPermissions(0o440), renameio.IgnoreUmask(), renameio.WithTempDir(h.path("etc")))
	if err != nil {
		return fmt.Errorf("write %s: %w", target, err)
	}
	defer func() { _ = f.Cleanup() }() // a no-op once the file is in place
	if _, err := f.WriteString(sudoersText); err != nil {
		return fmt.Errorf("write %s: %w", target, err)
	}
	if err := h.visudo(ctx, f.Name()); err != nil {
		return err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("write %s: %w", target, err)
	}
	// The whole is looked at as well: another file may break ours.
	if out, err := h.run(ctx, "visudo", "-c", "-q"); err != nil && h.Root == "/" {
		return errors.Join(fmt.Errorf("sudo's configuration as a whole does not hold: %w: %s", err, strings.TrimSpace(out)), putBack(target, old, oldErr, 0o440))
	}
	return nil
}

// includesRules says whether sudo reads our folder of rules (sudoers(5)).
func includesRules(text string) bool {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 2 && (words[0] == "@includedir" || words[0] == "#includedir") && filepath.Clean(words[1]) == "/etc/sudoers.d" {
			return true
		}
	}
	return false
}

// putBack undoes a change: the file is what it was, or gone if it was not.
func putBack(file string, old []byte, oldErr error, mode fs.FileMode) error {
	if oldErr != nil {
		return ignore(os.Remove(file), fs.ErrNotExist)
	}
	return renameio.WriteFile(file, old, mode, renameio.IgnoreUmask())
}

func (h *Host) installSSHD(ctx context.Context) error {
	main, err := os.ReadFile(h.path("etc/ssh/sshd_config"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a host without sshd: there is nothing to wire
	}
	if err != nil {
		return fmt.Errorf("read sshd's configuration: %w", err)
	}
	if !includesConfig(string(main)) {
		return errors.New("sshd does not read /etc/ssh/sshd_config.d here, so no certificate of ours would open an account: " +
			"begin /etc/ssh/sshd_config with `Include /etc/ssh/sshd_config.d/*.conf`")
	}
	target := h.path(sshdFile)
	old, oldErr := os.ReadFile(target) //nolint:gosec // by a fixed name
	if string(old) == sshdText {
		return nil
	}
	if err := h.freeSSHD(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil { //nolint:gosec // sshd's folder, as Debian makes it
		return fmt.Errorf("make sshd's folder: %w", err)
	}
	if err := renameio.WriteFile(target, []byte(sshdText), 0o644, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("write %s: %w", target, err)
	}
	if h.Root != "/" {
		return nil
	}
	out, err := h.askSSHD(ctx)
	if err != nil {
		err = fmt.Errorf("sshd does not take %s: %w: %s", target, err, strings.TrimSpace(out))
	} else if settings := sshdSettings(out); !maps.Equal(settings, sshdOurs) {
		err = fmt.Errorf("sshd passes over %s: it has %v", target, settings)
	}
	if err != nil {
		return errors.Join(err, putBack(target, old, oldErr, 0o644))
	}
	h.reloadSSHD(ctx)
	return nil
}

// askSSHD has sshd tell its settings. It wants a folder for that which is only
// there while it runs; where a socket starts it, or nothing does, that is made
// as its service makes it.
func (h *Host) askSSHD(ctx context.Context) (string, error) {
	out, err := h.run(ctx, "sshd", "-T")
	dir, missing := strings.CutPrefix(strings.TrimSpace(out), "Missing privilege separation directory: ")
	if err == nil || !missing || filepath.Dir(dir) != "/run" {
		return out, err
	}
	if err := errors.Join(ignore(os.Mkdir(dir, 0o755), fs.ErrExist), os.Chmod(dir, 0o755)); err != nil { //nolint:gosec // as sshd's service has it
		return out, fmt.Errorf("make %s for sshd: %w", dir, err)
	}
	return h.run(ctx, "sshd", "-T")
}

// sshdOurs is what sshd says of itself when it is wired.
var sshdOurs = map[string]string{
	"trustedusercakeys": "/etc/curfew/ssh_ca.pub", "authorizedprincipalsfile": "/run/curfew/ssh/principals/%u",
}

// freeSSHD refuses a host that has a certificate authority of its own: ours
// would take its place, and everybody who comes in by it would be locked out.
func (h *Host) freeSSHD(ctx context.Context) error {
	if h.Root != "/" {
		return nil // the program would speak of the machine's own
	}
	out, err := h.askSSHD(ctx)
	if err != nil {
		return fmt.Errorf("ask sshd for its settings: %w: %s", err, strings.TrimSpace(out))
	}
	return taken(out)
}

func taken(out string) error {
	for key, value := range sshdSettings(out) {
		if value != "none" && value != sshdOurs[key] {
			return fmt.Errorf("sshd has %s %s already, and curfew would take its place: take it out first, or do without curfew here", key, value)
		}
	}
	return nil
}

// sshdSettings picks the settings that we make from what `sshd -T` says.
func sshdSettings(out string) map[string]string {
	settings := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if _, ours := sshdOurs[key]; ours {
			settings[key] = value
		}
	}
	return settings
}

// includesConfig says whether sshd reads the files in its folder, for every
// connection (sshd_config(5)): what stands behind a Match is for some alone.
func includesConfig(text string) bool {
	for line := range strings.Lines(text) {
		words := strings.Fields(strings.ReplaceAll(line, "\"", ""))
		if len(words) == 0 {
			continue
		}
		switch strings.ToLower(words[0]) {
		case "match":
			return false
		case "include":
			for _, pattern := range words[1:] {
				if !filepath.IsAbs(pattern) {
					pattern = filepath.Join("/etc/ssh", pattern)
				}
				if ok, err := filepath.Match(pattern, "/"+sshdFile); err == nil && ok {
					return true
				}
			}
		}
	}
	return false
}
