package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"curfew.internal/agent/doctor"
)

// Facts observes what the doctor judges. It changes nothing. People are those
// whose accounts have to resolve.
func (h *Host) Facts(ctx context.Context, people []string) doctor.Facts {
	f := doctor.Facts{Kernel: h.kernelFacts(), Wiring: h.wiringFacts(ctx), Clock: h.clockFacts(ctx), Units: h.unitFacts(ctx)}
	f.PAM = h.pamFacts(ctx)
	f.Sudo = h.sudoFacts(ctx)
	f.Names = h.nameFacts(ctx, people)
	f.SSHD = h.sshdFacts(ctx)
	for _, dir := range []string{"var/lib/curfew", "run"} {
		f.Rooms = append(f.Rooms, h.roomFacts(dir))
	}
	return f
}

func (h *Host) kernelFacts() doctor.Kernel {
	var k doctor.Kernel
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		k.Release = unix.ByteSliceToString(name.Release[:])
	}
	_, err := os.Stat(h.path("sys/kernel/btf/vmlinux"))
	k.BTF = err == nil
	lsms, _ := os.ReadFile(h.path("sys/kernel/security/lsm")) // empty: not known
	k.LSMs = strings.TrimSpace(string(lsms))
	return k
}

func (h *Host) wiringFacts(ctx context.Context) doctor.Wiring {
	w, was, err := h.Wiring()
	f := doctor.Wiring{
		Wired: was || err != nil, Enforce: w.Enforce, Breakglass: w.Breakglass, Module: h.module() == nil, Lacks: map[string]string{},
	}
	if err != nil {
		f.Lacks["/"+wiringFile] = err.Error()
	}
	if w.Breakglass != "" {
		_, found, err := h.getent(ctx, "group", w.Breakglass)
		f.NoGroup = err == nil && !found
	}
	if main, err := os.ReadFile(h.path("etc/sudoers")); err == nil {
		f.NoRules = !includesRules(string(main))
	}
	if main, err := os.ReadFile(h.path("etc/ssh/sshd_config")); err == nil {
		f.NoConfig = !includesConfig(string(main))
	}
	for _, file := range h.Unwired() {
		service, _ := strings.CutPrefix(file, "/etc/pam.d/")
		pam := slices.Contains(services, service)
		b, err := os.ReadFile(h.path(file))
		switch gone := errors.Is(err, fs.ErrNotExist); {
		case gone && pam:
			f.Lacks[file] = "it is not there: PAM goes by /etc/pam.d/other, which does not ask the agent"
			f.Gone = append(f.Gone, service)
		case gone:
			f.Lacks[file] = "it is not there"
		case pam:
			f.Lacks[file], _ = lacks(string(b), w, was)
		default:
			f.Lacks[file] = "it is not as it was written"
		}
	}
	for _, s := range services {
		if b, err := os.ReadFile(h.path("etc/pam.d", s)); err == nil {
			if _, hard := lacks(string(b), w, was); hard {
				f.Hard = append(f.Hard, s)
			}
		}
	}
	return f
}

// pamTry is the program that runs PAM's account phase: libpam loads modules,
// and the agent is static.
const pamTry = "/usr/libexec/curfew-agent/pam-try"

// pamFacts tries PAM for real, for root and for somebody who has no grant.
func (h *Host) pamFacts(ctx context.Context) doctor.PAM {
	var there []string
	for _, s := range services {
		if _, err := os.Stat(h.path("etc/pam.d", s)); err == nil {
			there = append(there, s)
		}
	}
	var f doctor.PAM
	for _, user := range []string{"root", "nobody"} {
		out, err := h.run(ctx, pamTry, append([]string{user, doctor.TTY}, there...)...)
		if err != nil {
			return doctor.PAM{Err: err.Error()}
		}
		for line := range strings.Lines(out) {
			words := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
			if len(words) != 4 {
				continue // a module's own words
			}
			code, err := strconv.Atoi(words[1])
			if err != nil {
				return doctor.PAM{Err: "pam-try says " + strconv.Quote(line)}
			}
			f.Tries = append(f.Tries, doctor.Try{Service: words[0], User: user, Code: code, Text: words[2], Said: words[3]})
		}
	}
	if len(f.Tries) != 2*len(there) {
		f.Err = "pam-try ended before it had tried all services"
	}
	return f
}

func (h *Host) sudoFacts(ctx context.Context) doctor.Sudo {
	var f doctor.Sudo
	// Not sudo itself: it refuses to run below the agent, which gains nothing.
	out, err := h.run(ctx, "visudo", "-V")
	if err != nil {
		return doctor.Sudo{Err: err.Error()}
	}
	first, rest, _ := strings.Cut(out, "\n")
	f.Version = strings.TrimSpace(strings.TrimPrefix(first, "visudo version "))
	f.Rust = !strings.Contains(rest, "grammar version") // sudo-rs says its version alone
	if out, err := h.run(ctx, "visudo", "-c"); err != nil {
		f.Wrong = out
		if strings.TrimSpace(out) == "" {
			f.Wrong = err.Error()
		}
	}
	// What it warns of is said by visudo as well.
	f.Rules, _ = h.output(ctx, "cvtsudoers", "-e", "-f", "json", "/etc/sudoers")
	f.Files = map[string]string{}
	names := []string{"etc/sudoers"}
	found, _ := filepath.Glob(h.path("etc/sudoers.d/*")) // the pattern is good
	for _, file := range found {
		name, _ := filepath.Rel(h.Root, file) // it lies below
		names = append(names, name)
	}
	for _, name := range names {
		if base := filepath.Base(name); name != "etc/sudoers" && (strings.Contains(base, ".") || strings.HasSuffix(base, "~")) {
			continue // sudo passes over it
		}
		if b, err := os.ReadFile(h.path(name)); err == nil {
			f.Files["/"+name] = string(b)
		}
	}
	return f
}

// caches are the units of programs that keep names of every source. sssd
// keeps those of its own alone.
var caches = []string{"nscd.service", "unscd.service"}

func (h *Host) nameFacts(ctx context.Context, people []string) doctor.Names {
	f := doctor.Names{Unknown: map[string]string{}}
	b, err := os.ReadFile(h.path("etc/nsswitch.conf"))
	if err != nil {
		f.Err = err.Error()
	}
	f.NSSwitch = string(b)
	// systemd itself makes up nobody: it answers where it is asked at all.
	if out, err := h.run(ctx, "getent", "-s", "systemd", "passwd", "nobody"); err != nil {
		f.Systemd = strings.TrimSpace(err.Error() + " " + out)
	}
	for _, name := range people {
		switch _, found, err := h.getent(ctx, "passwd", name); {
		case err != nil:
			f.Unknown[name] = err.Error()
		case !found:
			f.Unknown[name] = "no source of names knows it"
		}
	}
	for _, unit := range caches {
		if out, err := h.run(ctx, "systemctl", "is-active", unit); err == nil && strings.TrimSpace(out) == "active" {
			f.Cache = unit
		}
	}
	return f
}

func (h *Host) sshdFacts(ctx context.Context) doctor.SSHD {
	f := doctor.SSHD{There: h.hasSSHD()}
	if !f.There {
		return f
	}
	out, err := h.askSSHD(ctx)
	if err != nil {
		f.Err = strings.TrimSpace(out)
		if f.Err == "" {
			f.Err = err.Error()
		}
	}
	f.Settings = out
	b, err := os.ReadFile(h.path("etc/curfew/ssh_ca.pub"))
	if err != nil {
		f.CA = err.Error()
		return f
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		f.CA = "/etc/curfew/ssh_ca.pub holds no public key"
		return f
	}
	f.CAKind = key.Type()
	return f
}
