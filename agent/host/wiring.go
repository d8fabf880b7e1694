package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
)

// Wiring is how the host's programs come to ask us.
type Wiring struct {
	Enforce    bool   `json:"enforce"`    // sudo and su only with a live grant
	Breakglass string `json:"breakglass"` // group that enforce mode lets through
	// Services had a file in /etc/pam.d to be wired.
	Services []string `json:"services,omitempty"`
}

var services = []string{"sshd", "sudo", "sudo-i", "su", "su-l", "login"}

// programOf is what a service is for: where it is gone, so may the service be.
var programOf = map[string]string{
	"sshd": "usr/sbin/sshd", "sudo": "usr/bin/sudo", "sudo-i": "usr/bin/sudo", "su": "usr/bin/su", "su-l": "usr/bin/su", "login": "usr/bin/login",
}

const (
	sudoersFile = "etc/sudoers.d/curfew"
	sshdFile    = "etc/ssh/sshd_config.d/curfew.conf"

	begin = "# curfew begin: made by `curfew-agent install`, taken out by `curfew-agent uninstall`\n"
	end   = "# curfew end\n"
	// glue begins the block in a file that had no newline at its end.
	glue = "\n# curfew begin: the line before had no end\n"

	sudoersText = "# curfew: rules of live grants are here, in memory; a missing folder is an empty one\n@includedir /run/curfew/sudoers.d\n"
	sshdText    = "# curfew: certificates of our CA open an account for its live grants alone\n" +
		"TrustedUserCAKeys /etc/curfew/ssh_ca.pub\nAuthorizedPrincipalsFile /run/curfew/ssh/principals/%u\n"
)

// Install wires PAM, sudo and sshd. It can be repeated. Each file changes
// whole or not at all, in an order in which a host that stops half-way can
// still be logged in to: the module says nothing to accounts that are not
// ours.
func (h *Host) Install(ctx context.Context, w Wiring) error {
	if err := h.install(ctx, w, func(string) bool { return true }); err != nil {
		return err
	}
	for _, s := range services {
		if !slices.Contains(w.Services, s) && h.there("etc/pam.d/"+s) {
			w.Services = append(slices.Clip(w.Services), s)
		}
	}
	return h.remember(w)
}

func (h *Host) there(name string) bool {
	_, err := os.Stat(h.path(name))
	return err == nil
}

// install wires those of the files that are asked for.
func (h *Host) install(ctx context.Context, w Wiring, asked func(file string) bool) error {
	if err := h.module(); err != nil {
		return err
	}
	if err := h.Prepare(); err != nil {
		return err
	}
	if asked("/" + sudoersFile) {
		if err := h.installSudoers(ctx); err != nil {
			return err
		}
	}
	if asked("/" + sshdFile) {
		if err := h.installSSHD(ctx); err != nil {
			return err
		}
	}
	if asked("/" + profileFile) {
		if err := h.installProfile(); err != nil {
			return err
		}
	}
	for _, s := range services {
		if !asked("/etc/pam.d/" + s) {
			continue
		}
		if err := h.edit("etc/pam.d/"+s, func(b []byte) []byte { return wire(unwire(b), w, authOf[s]) }); err != nil {
			return err
		}
	}
	return nil
}

// wiringFile says how the host was wired, for as long as it is to be so.
const wiringFile = "etc/curfew/wiring.json"

func (h *Host) remember(w Wiring) error {
	b, err := json.Marshal(w)
	if err != nil {
		return err
	}
	file := h.path(wiringFile)
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, b) { //nolint:gosec // by a fixed name
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // what is secret in it has modes of its own
		return fmt.Errorf("remember the wiring: %w", err)
	}
	if err := renameio.WriteFile(file, b, 0o644, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("remember the wiring: %w", err)
	}
	return nil
}

// Wiring is how the host was wired, if it was.
func (h *Host) Wiring() (w Wiring, was bool, err error) {
	b, err := os.ReadFile(h.path(wiringFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Wiring{}, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &w)
	}
	if err != nil {
		return Wiring{}, false, fmt.Errorf("how this host was wired cannot be read: `curfew-agent install --observe`, or --enforce, says it anew: %w", err)
	}
	return w, true, nil
}

// Mend puts right what somebody took out of the wiring, or altered, and says
// what that was: that alone, so that whatever is altered meanwhile is found by
// the next look. A host that was not wired, or by an earlier version, is left
// as it is; what is then missing is what is left. So is a service's file that
// was deleted: what else stood in it is not known, and PAM goes by another.
func (h *Host) Mend(ctx context.Context) (mended, left []string, err error) {
	missing := h.Unwired()
	if len(missing) == 0 {
		return nil, nil, nil
	}
	w, was, err := h.Wiring()
	if err != nil || !was {
		return nil, missing, err
	}
	for _, s := range services {
		if file := "/etc/pam.d/" + s; slices.Contains(missing, file) && !h.there(file) {
			left = append(left, file)
		}
	}
	mended = slices.DeleteFunc(slices.Clone(missing), func(file string) bool { return slices.Contains(left, file) })
	if len(mended) == 0 {
		return nil, left, nil
	}
	if err := h.install(ctx, w, func(file string) bool { return slices.Contains(mended, file) }); err != nil {
		return nil, missing, fmt.Errorf("put the wiring right: %w", err)
	}
	return mended, left, nil
}

// hasSSHD says whether there is an sshd to wire.
func (h *Host) hasSSHD() bool {
	_, err := os.Stat(h.path("etc/ssh/sshd_config"))
	return err == nil
}

// module looks for the PAM module: lines that name one which is not there ask
// nobody.
func (h *Host) module() error {
	for _, dir := range moduleDirs {
		files, err := filepath.Glob(h.path(dir, "pam_curfew.so"))
		if err != nil {
			return fmt.Errorf("look for pam_curfew.so: %w", err)
		}
		for _, f := range files {
			if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
				return nil
			}
		}
	}
	return errors.New("pam_curfew.so is in none of the folders that PAM loads from, so nothing was changed: install it first")
}

// Uninstall takes the wiring out: every file is again what it was.
func (h *Host) Uninstall(ctx context.Context) error {
	// First of all, or a running agent would put the rest right.
	errs := []error{ignore(os.Remove(h.path(wiringFile)), fs.ErrNotExist)}
	_ = os.Remove(h.path(filepath.Dir(wiringFile))) // only if nothing else is in it
	for _, s := range services {
		errs = append(errs, h.edit("etc/pam.d/"+s, unwire))
	}
	errs = append(errs, h.removeProfile())
	for _, name := range []string{sudoersFile, sshdFile} {
		if err := os.Remove(h.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove %s: %w", name, err))
		}
	}
	h.reloadSSHD(ctx)
	return errors.Join(errs...)
}

// Unwired lists what is missing or altered of the wiring.
func (h *Host) Unwired() []string {
	var missing []string
	w, was, err := h.Wiring()
	known := was && err == nil
	texts := map[string]string{sudoersFile: sudoersText}
	if h.hasSSHD() {
		texts[sshdFile] = sshdText
	}
	if h.hasProfile() {
		texts[profileFile] = profileText
	}
	for name, want := range texts {
		if b, err := os.ReadFile(h.path(name)); err != nil || string(b) != want {
			missing = append(missing, "/"+name)
		}
	}
	for _, s := range services {
		b, err := os.ReadFile(h.path("etc/pam.d", s))
		if errors.Is(err, fs.ErrNotExist) && slices.Contains(w.Services, s) && h.there(programOf[s]) {
			missing = append(missing, "/etc/pam.d/"+s)
		}
		if err != nil {
			continue
		}
		if lack, _ := lacks(string(b), w, known); lack != "" {
			missing = append(missing, "/etc/pam.d/"+s)
		}
	}
	slices.Sort(missing)
	return missing
}

// control is what PAM makes of our answer: that of "required", but for a module
// that is not there, or cannot be loaded. Under "required" everybody would be
// kept out then, root on the console as well.
const control = "[success=ok new_authtok_reqd=ok ignore=ignore module_unknown=ignore default=bad]"

// lacks says what a service file lacks for PAM to ask us before any other for
// the account, and after every other for the session (pam.d(5)), with the
// arguments of the wiring, if that is known. Hard are lines of an earlier
// version, which do the same while the module is there.
func lacks(text string, w Wiring, known bool) (lack string, hard bool) {
	var account, session pamLine
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		l, ok := parsePAM(line)
		if !ok {
			continue
		}
		if account.kind == "" && (l.kind == "account" || l.kind == "@include") {
			account = l
		}
		if l.kind == "session" || l.kind == "@include" {
			session = l
		}
	}
	for _, want := range []struct {
		place, kind string
		line        pamLine
	}{{"first", "account", account}, {"last", "session", session}} {
		l := want.line
		switch {
		case l.kind != want.kind || l.dash || l.module != "pam_curfew.so":
			return "its " + want.place + " " + want.kind + " line is not ours", false
		case l.control != control && l.control != "required":
			return "our " + want.kind + " line has another control than it was given", false
		case known && !slices.Equal(l.args, w.args()):
			return "our " + want.kind + " line has other arguments than it was given", false
		}
		hard = hard || l.control == "required"
	}
	return "", hard
}

// A pamLine is one line of a service's file.
type pamLine struct {
	kind, control, module string
	dash                  bool // nobody is told if the module is not there
	args                  []string
}

// parsePAM reads a line, unless there is nothing on it.
func parsePAM(line string) (l pamLine, ok bool) {
	line, _, _ = strings.Cut(line, "#")
	words := strings.Fields(line)
	if len(words) == 0 {
		return l, false
	}
	l.dash = strings.HasPrefix(words[0], "-")
	l.kind = strings.ToLower(strings.TrimPrefix(words[0], "-"))
	words = words[1:]
	n := 1
	if len(words) > 0 && strings.HasPrefix(words[0], "[") {
		for n < len(words) && !strings.HasSuffix(words[n-1], "]") {
			n++
		}
	}
	if len(words) > n {
		l.control, l.module, l.args = strings.Join(words[:n], " "), words[n], words[n+1:]
	}
	return l, true
}

// reloadSSHD has a running sshd read its configuration again, once: where its
// unit has both names, as in Debian, systemd says so. A host where it does not
// run reads it at the start.
func (h *Host) reloadSSHD(ctx context.Context) {
	if h.Root != "/" {
		return
	}
	out, err := h.run(ctx, "systemctl", "show", "--property=Id", "--value", "ssh.service", "sshd.service")
	if err != nil {
		out = "ssh.service sshd.service"
	}
	units := strings.Fields(out)
	slices.Sort(units)
	_, _ = h.run(ctx, "systemctl", append([]string{"--no-block", "try-reload-or-restart"}, slices.Compact(units)...)...)
}

// edit replaces a file by what change makes of it, with the mode and the
// owner that it had. A file that is not there is left so.
func (h *Host) edit(name string, change func([]byte) []byte) error {
	file := h.path(name)
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	b, err := os.ReadFile(file) //nolint:gosec // by a fixed name
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	next := change(b)
	if bytes.Equal(b, next) {
		return nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("look at %s: %w", name, err)
	}
	f, err := renameio.NewPendingFile(file, renameio.WithPermissions(info.Mode().Perm()), renameio.IgnoreUmask())
	if err != nil {
		return fmt.Errorf("change %s: %w", name, err)
	}
	defer func() { _ = f.Cleanup() }() // a no-op once the file is in place
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
			return fmt.Errorf("change %s: %w", name, err)
		}
	}
	if _, err := f.Write(next); err != nil {
		return fmt.Errorf("change %s: %w", name, err)
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("change %s: %w", name, err)
	}
	return nil
}

// args are those of our lines.
func (w Wiring) args() []string {
	var args []string
	if w.Enforce {
		args = append(args, "enforce")
	}
	if w.Breakglass != "" {
		args = append(args, "breakglass="+w.Breakglass)
	}
	return args
}

// authOf are the lines of the services that ask for a password where no rule
// of a grant matches: accounts of ours have none.
var authOf = map[string]string{"sudo": authLine, "sudo-i": authLine}

// As in control, but that nobody else is asked after our no.
const authLine = "auth [success=ok ignore=ignore module_unknown=ignore default=die] pam_curfew.so\n"

// wire adds our lines. Auth, where there is one, and account come first:
// Debian's common-account ends the phase with "done" as soon as one module
// says yes. Session comes last: then the login has its loginuid and its logind
// session.
func wire(b []byte, w Wiring, auth string) []byte {
	line := strings.Join(append([]string{control, "pam_curfew.so"}, w.args()...), " ")
	open := begin
	if len(b) > 0 && b[len(b)-1] != '\n' {
		open = glue
	}
	return []byte(begin + auth + "account " + line + "\n" + end + string(b) +
		open + "session " + line + "\n" + end)
}

// unwire takes our lines out.
func unwire(b []byte) []byte {
	s := string(b)
	for _, mark := range []string{glue, begin} {
		for {
			from := strings.Index(s, mark)
			if from < 0 {
				break
			}
			to := strings.Index(s[from:], end)
			if to < 0 {
				return []byte(s) // somebody cut our block: it is theirs now
			}
			rest := s[from+to+len(end):]
			if mark == glue && rest != "" {
				rest = "\n" + rest // somebody went on below: two lines must not become one
			}
			s = s[:from] + rest
		}
	}
	return []byte(s)
}
