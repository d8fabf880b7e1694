package host

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// put writes a file below the test's root.
func put(t *testing.T, h *Host, name, text string) {
	t.Helper()
	must(t, os.MkdirAll(h.path(name, ".."), 0o755))
	must(t, os.WriteFile(h.path(name), []byte(text), 0o644))
}

// debian is a host on which everything can be wired.
func debian(t *testing.T) *Host {
	t.Helper()
	h := machine(t)
	put(t, h, "usr/lib/x86_64-linux-gnu/security/pam_curfew.so", "x")
	put(t, h, "etc/pam.d/sshd", "@include common-account\n@include common-session\n")
	put(t, h, "etc/sudoers", "root ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n")
	put(t, h, "etc/sudoers.d/README", "")
	put(t, h, "etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n")
	must(t, os.MkdirAll(h.path("etc/ssh/sshd_config.d"), 0o755))
	return h
}

func unwired(h *Host, file string) bool { return slices.Contains(h.Unwired(), file) }

func TestInstallAndUninstall(t *testing.T) {
	h := debian(t)
	before, err := os.ReadFile(h.path("etc/pam.d/sshd"))
	must(t, err)
	for range 2 {
		must(t, h.Install(t.Context(), Wiring{Enforce: true}))
	}
	if left := h.Unwired(); len(left) > 0 {
		t.Error(left)
	}
	must(t, h.Uninstall(t.Context()))
	after, err := os.ReadFile(h.path("etc/pam.d/sshd"))
	if err != nil || string(after) != string(before) {
		t.Errorf("%q %v", after, err)
	}
	if got := h.Unwired(); !slices.IsSorted(got) || len(got) != 3 {
		t.Error(got)
	}
}

func TestMend(t *testing.T) {
	h := debian(t)
	if got, _, err := h.Mend(t.Context()); err != nil || len(got) != 0 || len(h.Unwired()) == 0 {
		t.Errorf("a host that was never wired is: %v, %v", got, err)
	}
	must(t, h.Install(t.Context(), Wiring{Enforce: true, Breakglass: "glass"}))
	whole, err := os.ReadFile(h.path("etc/pam.d/sshd"))
	must(t, err)
	for _, c := range []struct{ name, file, text string }{
		{"no line of ours", "etc/pam.d/sshd", "@include common-account\n@include common-session\n"},
		{"a line before ours", "etc/pam.d/sshd", "account sufficient pam_permit.so\n" + string(whole)},
		{"lines that ask for less", "etc/pam.d/sshd", strings.ReplaceAll(string(whole), " enforce", "")},
		{"another rule file", "etc/sudoers.d/curfew", "ALL ALL=(ALL) ALL\n"},
		{"another authority", "etc/ssh/sshd_config.d/curfew.conf", "TrustedUserCAKeys /tmp/ca\n"},
	} {
		put(t, h, c.file, c.text)
		got, left, err := h.Mend(t.Context())
		if err != nil || !slices.Equal(got, []string{"/" + c.file}) || len(left)+len(h.Unwired()) > 0 {
			t.Errorf("%s: %v, %v, left %v", c.name, got, err, h.Unwired())
		}
		b, err := os.ReadFile(h.path("etc/pam.d/sshd"))
		if err != nil || strings.Count(string(b), "enforce breakglass=glass") != 2 {
			t.Errorf("%s: wired in another way: %s", c.name, b)
		}
	}
	put(t, h, "etc/curfew/wiring.json", "{")
	put(t, h, "etc/sudoers.d/curfew", "")
	if got, _, err := h.Mend(t.Context()); err == nil || len(got) > 0 {
		t.Errorf("what nobody can read counts: %v, %v", got, err)
	}
	must(t, h.Uninstall(t.Context()))
	if got, _, err := h.Mend(t.Context()); err != nil || len(got) > 0 {
		t.Errorf("put back after it was taken out: %v, %v", got, err)
	}
	if _, err := os.Stat(h.path("etc/curfew")); err == nil {
		t.Error("a folder is left")
	}
}

func TestAServiceWhoseFileIsDeletedIsTold(t *testing.T) {
	h := debian(t)
	const file = "/etc/pam.d/su"
	text := "auth sufficient pam_rootok.so\n@include common-account\n@include common-session\n"
	put(t, h, file, text)
	put(t, h, "usr/bin/su", "x")
	must(t, h.Install(t.Context(), Wiring{Enforce: true}))
	must(t, os.Remove(h.path(file)))
	for range 2 {
		if mended, left, err := h.Mend(t.Context()); err != nil || len(mended) > 0 || !slices.Equal(left, []string{file}) {
			t.Errorf("it was put right: %v, left %v, %v", mended, left, err)
		}
	}
	put(t, h, sudoersFile, "ALL ALL=(ALL) ALL\n")
	if mended, left, err := h.Mend(t.Context()); err != nil || !slices.Equal(mended, []string{"/" + sudoersFile}) || !slices.Equal(left, []string{file}) {
		t.Errorf("beside another: %v, left %v, %v", mended, left, err)
	}
	f := h.wiringFacts(t.Context())
	if !slices.Equal(f.Gone, []string{"su"}) || !strings.Contains(f.Lacks[file], "PAM goes by") {
		t.Errorf("the doctor hears %+v", f)
	}
	put(t, h, file, text) // as its package has it
	if mended, left, err := h.Mend(t.Context()); err != nil || !slices.Equal(mended, []string{file}) || len(left) > 0 {
		t.Errorf("once it is there again: %v, left %v, %v", mended, left, err)
	}
	must(t, os.Remove(h.path(file)))
	must(t, os.Remove(h.path("usr/bin/su")))
	if left := h.Unwired(); len(left) > 0 {
		t.Errorf("with the program away: %v", left)
	}
}

func TestNothingIsWiredWithoutTheModule(t *testing.T) {
	h := debian(t)
	must(t, os.Remove(h.path("usr/lib/x86_64-linux-gnu/security/pam_curfew.so")))
	if err := h.Install(t.Context(), Wiring{}); err == nil || !strings.Contains(err.Error(), "pam_curfew.so") {
		t.Error(err)
	}
	b, err := os.ReadFile(h.path("etc/pam.d/sshd"))
	if err != nil || strings.Contains(string(b), "curfew") {
		t.Errorf("every login on this host fails now: %s %v", b, err)
	}
	if _, err := os.Stat(h.path(sudoersFile)); err == nil {
		t.Error("half of it is wired")
	}
}

func TestUninstallAfterSomebodyWentOnBelow(t *testing.T) {
	for before, after := range map[string]string{
		"auth required pam_unix.so":   "auth required pam_unix.so\nsession optional pam_x.so\n",
		"auth required pam_unix.so\n": "auth required pam_unix.so\nsession optional pam_x.so\n",
		"":                            "session optional pam_x.so\n",
	} {
		b := append(wire([]byte(before), Wiring{}, authLine), "session optional pam_x.so\n"...)
		if got := string(unwire(b)); got != after {
			t.Errorf("%q came out as %q", before, got)
		}
	}
}

func TestUnwiredSeesWhatPAMWouldDo(t *testing.T) {
	for name, c := range map[string]struct {
		old, new string
		said     bool
	}{
		"as installed":                  {"", "", false},
		"auth added in front":           {"# curfew begin", "auth required pam_x.so\n# curfew begin", false},
		"comment":                       {"account [", "#account [", true},
		"optional":                      {"account " + control, "account optional", true},
		"another module":                {"account " + control, "account required pam_permit.so", true},
		"of an earlier version":         {"account " + control, "account required", false},
		"a control that lets a no pass": {"module_unknown=ignore default=bad", "module_unknown=ignore default=ignore", true},
		"a line that is silent without its module": {"account [", "-account [", true},
		"sufficient before":                        {"# curfew begin", "account sufficient pam_permit.so\n# curfew begin", true},
		"continued":                                {"# curfew begin", "account \\\n sufficient pam_permit.so\n# curfew begin", true},
		"included before":                          {"# curfew begin", "@include x\n# curfew begin", true},
		"session not there":                        {"session " + control + " pam_curfew.so", "", true},
		"session not the last":                     {"session " + control + " pam_curfew.so", "session " + control + " pam_curfew.so\nsession required pam_x.so", true},
	} {
		h := debian(t)
		text := string(wire([]byte("auth required pam_unix.so\n@include common-account\n"), Wiring{}, ""))
		put(t, h, "etc/pam.d/sshd", strings.Replace(text, c.old, c.new, 1))
		if unwired(h, "/etc/pam.d/sshd") != c.said {
			t.Errorf("%s: %v", name, h.Unwired())
		}
	}
}

func TestInstallSaysWhatTheHostDoesNotRead(t *testing.T) {
	for name, c := range map[string]struct{ file, text, says string }{
		"no folder of sshd's":    {"etc/ssh/sshd_config", "UsePAM yes\n#Include /etc/ssh/sshd_config.d/*.conf\n", "sshd does not read"},
		"behind a match":         {"etc/ssh/sshd_config", "Match User bob\nInclude /etc/ssh/sshd_config.d/*.conf\n", "sshd does not read"},
		"another folder":         {"etc/ssh/sshd_config", "Include /etc/ssh/other.d/*.conf\n", "sshd does not read"},
		"no folder of sudo's":    {"etc/sudoers", "root ALL=(ALL:ALL) ALL\n", "sudo does not read"},
		"a comment, not include": {"etc/sudoers", "# includedir /etc/sudoers.d\n", "sudo does not read"},
		"relative":               {"etc/ssh/sshd_config", "include sshd_config.d/*.conf\n", ""},
		"the old spelling":       {"etc/sudoers", "#includedir /etc/sudoers.d\n", ""},
	} {
		h := debian(t)
		put(t, h, c.file, c.text)
		err := h.Install(t.Context(), Wiring{})
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnAuthorityOfTheHostsOwnIsNotReplaced(t *testing.T) {
	for out, free := range map[string]bool{
		"port 22\ntrustedusercakeys none\nauthorizedprincipalsfile none\n":                                            true,
		"trustedusercakeys /etc/curfew/ssh_ca.pub\nauthorizedprincipalsfile /run/curfew/ssh/principals/%u\nport 22\n": true,
		"trustedusercakeys /etc/ssh/ca.pub\nauthorizedprincipalsfile none\n":                                          false,
		"trustedusercakeys none\nauthorizedprincipalsfile /etc/ssh/principals/%u\n":                                   false,
	} {
		if err := taken(out); (err == nil) != free {
			t.Errorf("%q: %v", out, err)
		}
	}
}
