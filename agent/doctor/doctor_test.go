package doctor

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

const nsswitch = `# comment: systemd
passwd:         files systemd
group:          files systemd
shadow:         files systemd
hosts:          files dns
`

const sshdSays = `port 22
usepam yes
pubkeyauthentication yes
trustedusercakeys /etc/curfew/ssh_ca.pub
authorizedprincipalsfile /run/curfew/ssh/principals/%u
casignaturealgorithms ssh-ed25519,ecdsa-sha2-nistp256
subsystem sftp /usr/lib/openssh/sftp-server
`

const unitsSay = `Id=curfew-agent.service
LoadState=loaded
ActiveState=active
UnitFileState=enabled
DropInPaths=
NeedDaemonReload=no

Id=curfew-record.service
LoadState=loaded
ActiveState=active
UnitFileState=static
DropInPaths=
NeedDaemonReload=no

Id=curfew-sweep.timer
LoadState=loaded
ActiveState=active
UnitFileState=enabled
DropInPaths=
NeedDaemonReload=no

Id=curfew-sweep.service
LoadState=loaded
ActiveState=inactive
UnitFileState=enabled
DropInPaths=
NeedDaemonReload=no

Id=run-curfew-home.mount
LoadState=loaded
ActiveState=active
UnitFileState=static
DropInPaths=
NeedDaemonReload=no
`

// sudoSays is cvtsudoers' word on Debian's own rules, and a grant's.
const sudoSays = `{"Defaults": [{"Options": [{"env_reset": true}, {"use_pty": true}]}],
"User_Specs": [
 {"User_List": [{"username": "root"}], "Cmnd_Specs": [{"Options": [{"setenv": true}], "Commands": [{"command": "ALL"}]}]},
 {"User_List": [{"usergroup": "sudo"}], "Cmnd_Specs": [{"Options": [{"setenv": true}], "Commands": [{"command": "ALL"}]}]},
 {"User_List": [{"username": "ana"}], "Cmnd_Specs": [{"Options": [{"notafter": "20260701130000Z"}, {"authenticate": false}], "Commands": [{"command": "ALL"}]}]}
]}`

// healthy is a host on which all is well.
func healthy() Facts {
	return Facts{
		Host: "db1", Now: noon, Version: "1.0",
		Agent: Agent{
			Ends: noon.Add(20 * time.Hour), Server: "curfew.example:7444", At: noon.Add(-time.Second), Version: "1.0", Plane: "1.0",
			Connected: true, Mode: "lsm+guard+timer",
		},
		Kernel: Kernel{Release: "6.12.1", BTF: true, LSMs: "lockdown,bpf"},
		Wiring: Wiring{Wired: true, Enforce: true, Breakglass: "glass", Module: true, Lacks: map[string]string{}},
		PAM: PAM{Tries: []Try{
			{Service: "sshd", User: "root"},
			{Service: "sshd", User: "nobody", Said: Answer},
			{Service: "login", User: "nobody", Code: 6, Text: "Permission denied", Said: Answer}, // a site's own rule
		}},
		Sudo:  Sudo{Version: "1.9.13p3", Rules: sudoSays, Files: map[string]string{"/etc/sudoers": "Defaults env_reset\nDefaults use_pty\n"}},
		Names: Names{NSSwitch: nsswitch, Unknown: map[string]string{}},
		SSHD:  SSHD{There: true, Settings: sshdSays, CAKind: "ssh-ed25519"},
		Clock: Clock{Synced: true},
		Rooms: []Room{
			{Path: "/var/lib/curfew", Free: 5 << 30, Total: 20 << 30, FreeFiles: 1 << 20, Files: 2 << 20},
			{Path: "/run", Free: 90 << 20, Total: 100 << 20}, // counts no files
		},
		Units: Units{Text: unitsSay},
	}
}

func TestAHealthyHostIsFine(t *testing.T) {
	for name, change := range map[string]func(*Facts){
		"as it is": func(*Facts) {},
		"a container, whose clock is the machine's":        func(f *Facts) { f.Clock = Clock{Container: true} },
		"without sshd there is nothing to say of it":       func(f *Facts) { f.SSHD = SSHD{} },
		"a control plane that does not say its version":    func(f *Facts) { f.Agent.Plane = "" },
		"who may do everything is refused in enforce mode": func(f *Facts) { f.Sudo.Rules = free("bob") },
		"an account whose name no lookup needs":            func(f *Facts) { f.Names.Unknown = nil },
		"lookups that stop only after systemd": func(f *Facts) {
			f.Names.NSSwitch = strings.ReplaceAll(nsswitch, "systemd\n", "systemd [NOTFOUND=return] sss\n")
		},
		"sshd that does not say which signatures it takes, as older ones do": func(f *Facts) { f.SSHD.Settings = strings.Replace(sshdSays, "casignature", "x", 1) },
	} {
		f := healthy()
		change(&f)
		if r := Examine(f); r.Severity != Fine || len(r.Findings) > 0 || len(r.Checks) != len(checks) || r.Severity.Exit() != 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// free is a rule of one who may do everything without a password.
func free(name string) string {
	return `{"User_Specs": [{"User_List": [{"username": "` + name + `"}], "Cmnd_Specs": [{"Options": [{"authenticate": false}], "Commands": [{"command": "ALL"}]}]}]}`
}

func defaults(option, value string) string {
	return `{"Defaults": [{"Options": [{"` + option + `": ` + value + `}]}]}`
}

// set writes another value for a property of a unit.
func set(unit, property, value string) func(*Facts) {
	return func(f *Facts) {
		var all []string
		for text := range strings.SplitSeq(unitsSay, "\n\n") {
			if strings.HasPrefix(text, "Id="+unit+"\n") {
				at := strings.Index(text, property+"=")
				rest := text[at:]
				text = text[:at] + property + "=" + value + rest[strings.Index(rest+"\n", "\n"):]
			}
			all = append(all, text)
		}
		f.Units.Text = strings.Join(all, "\n\n")
	}
}

func TestFindings(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(*Facts)
		check    string
		severity Severity
		says     string
		mend     string
	}{
		{"in no fleet", func(f *Facts) { f.Agent.Joined = "this host is in no fleet yet" }, "agent", Broken, "no whole identity", "curfew hosts token --host db1"},
		{"never ran", func(f *Facts) { f.Agent.Said = "the agent has not run" }, "agent", Broken, "nothing is known", "systemctl restart curfew-agent.service"},
		{"silent", func(f *Facts) { f.Agent.At = noon.Add(-time.Minute) }, "agent", Broken, "last alive at 2026-07-01T11:59:00Z", "systemctl restart curfew-agent.service"},
		{"certificate over", func(f *Facts) { f.Agent.Ends = noon }, "uplink", Broken, "ran out", "curfew-agent join --name db1"},
		{"certificate nearly over", func(f *Facts) { f.Agent.Ends = noon.Add(time.Hour) }, "uplink", Warning, "was not renewed", "systemctl restart"},
		{"refused", func(f *Facts) { f.Agent.Refused = "decommissioned" }, "uplink", Broken, "refuses this host: decommissioned", "curfew-agent join"},
		{"cut off", func(f *Facts) { f.Agent.Connected = false }, "uplink", Broken, "curfew.example:7444 is not heard", "/dev/tcp/curfew.example/7444"},
		{"cut off, by number", func(f *Facts) { f.Agent.Connected, f.Agent.Server = false, "[fd00::1]:7444" }, "uplink", Broken, "is not heard", "/dev/tcp/fd00::1/7444"},
		{"another program installed", func(f *Facts) { f.Version = "1.1" }, "version", Warning, "the one installed is 1.1", "systemctl restart curfew-agent.service"},
		{"another control plane", func(f *Facts) { f.Agent.Plane = "1.1" }, "version", Warning, "the control plane 1.1", "apt-get install"},
		{"no BTF", func(f *Facts) { f.Kernel.BTF = false }, "kernel", Broken, "6.12.1 has no BTF", "CONFIG_DEBUG_INFO_BTF"},
		{"nothing refuses", func(f *Facts) { f.Agent.Mode = "tracing+timer"; f.Kernel.LSMs = "lockdown,apparmor" }, "kernel", Note, "takes no programs that refuse", "lsm=lockdown,apparmor,bpf "},
		{"no module", func(f *Facts) { f.Wiring.Module = false }, "wiring", Broken, "pam_curfew.so is in none", "--reinstall curfew-agent"},
		{"not wired", func(f *Facts) { f.Wiring.Wired = false }, "wiring", Broken, "is not wired", "curfew-agent install"},
		{"a service's file deleted", func(f *Facts) {
			f.Wiring.Lacks["/etc/pam.d/su"], f.Wiring.Gone = "it is not there", []string{"su"}
		}, "wiring", Broken, "/etc/pam.d/su: it is not there", "apt-get install --reinstall -o Dpkg::Options::=--force-confmiss util-linux"},
		{"a line lost", func(f *Facts) { f.Wiring.Lacks["/etc/pam.d/sudo"] = "its first account line is not ours" }, "wiring", Broken, "/etc/pam.d/sudo: its first account", "curfew-agent install"},
		{"no rules", func(f *Facts) { f.Wiring.NoRules = true }, "wiring", Broken, "does not read /etc/sudoers.d", "visudo"},
		{"no config", func(f *Facts) { f.Wiring.NoConfig = true }, "wiring", Broken, "does not read /etc/ssh/sshd_config.d", "sed -i '1i Include"},
		{"old lines", func(f *Facts) { f.Wiring.Hard = []string{"sshd", "su"} }, "wiring", Warning, "in sshd, su keep everybody out", "curfew-agent install"},
		{"enforced without a way round", func(f *Facts) { f.Wiring.Breakglass = "" }, "wiring", Warning, "no group may pass", "--breakglass"},
		{"observed", func(f *Facts) { f.Wiring.Enforce = false }, "wiring", Note, "only observes", "install --enforce"},
		{"enforced with a group that is not there", func(f *Facts) { f.Wiring.NoGroup = true }, "wiring", Warning, "glass is not there", "groupadd glass"},
		{"PAM not tried", func(f *Facts) { f.PAM = PAM{Err: "no program"} }, "pam", Warning, "could not be tried: no program", "--reinstall"},
		{"a stack that fails", func(f *Facts) { f.PAM.Tries[0].Code, f.PAM.Tries[0].Text = 28, "Module is unknown" }, "pam", Broken, "sshd fails for root: Module is unknown", "/etc/pam.d/sshd"},
		{"root refused", func(f *Facts) { f.PAM.Tries[0].Code, f.PAM.Tries[0].Text = 13, "expired" }, "pam", Warning, "refuses root by way of sshd: expired", "/etc/pam.d/sshd"},
		{"not asked", func(f *Facts) { f.PAM.Tries[1].Said = "" }, "pam", Broken, "sshd does not come to ask", "curfew-agent install"},
		{"no sudo", func(f *Facts) { f.Sudo = Sudo{Err: "sudo is not on this host"} }, "sudo", Broken, "not on this host", "--reinstall sudo"},
		{"sudo in Rust", func(f *Facts) { f.Sudo.Version, f.Sudo.Rust = "0.2.5", true }, "sudo", Broken, "sudo-rs 0.2.5", "update-alternatives"},
		{"an old sudo", func(f *Facts) { f.Sudo.Version = "1.8.19p1" }, "sudo", Broken, "does not know NOTAFTER", "install sudo"},
		{"a broken file", func(f *Facts) { f.Sudo.Wrong = "/etc/sudoers.d/zz:1:8: syntax error\nfoo bar\n" }, "sudo", Broken, "zz:1:8: syntax error", "mv /etc/sudoers.d/zz /etc/sudoers.d/zz.broken"},
		{"ours broken", func(f *Facts) { f.Sudo.Wrong = ">>> /etc/sudoers.d/curfew: syntax error near line 1 <<<" }, "sudo", Broken, "syntax error", "curfew-agent install"},
		{"sudoers broken", func(f *Facts) { f.Sudo.Wrong = "/etc/sudoers:3:1: syntax error" }, "sudo", Broken, "refuses everybody", "visudo"},
		{"a file that all can write", func(f *Facts) { f.Sudo.Wrong = "/etc/sudoers.d/zz: bad permissions, should be mode 0440" }, "sudo", Broken, "passes over a file", "chmod 0440 /etc/sudoers.d/zz"},
		{"sudo broken in a way that nobody knows", func(f *Facts) { f.Sudo.Wrong = "\nno such thing\n" }, "sudo", Broken, "no such thing", "visudo -c"},
		{"rules that cannot be read", func(f *Facts) { f.Sudo.Rules = "" }, "sudo", Warning, "could not be looked through", "cvtsudoers"},
		{"targetpw", func(f *Facts) {
			f.Sudo.Rules = defaults("targetpw", "true")
			f.Sudo.Files["/etc/sudoers.d/zz"] = "# Defaults none\nDefaults targetpw\n"
		}, "sudo", Warning, "/etc/sudoers.d/zz:2: Defaults targetpw true", "sed -i '2s/^/#/' /etc/sudoers.d/zz"},
		{"beside other settings", func(f *Facts) {
			f.Sudo.Rules = defaults("rootpw", "true")
			f.Sudo.Files["/etc/sudoers.d/zz"] = "Defaults env_reset, rootpw\n"
		}, "sudo", Warning, "/etc/sudoers.d/zz:1: Defaults rootpw", "visudo -f /etc/sudoers.d/zz"},
		{"nobody is asked", func(f *Facts) { f.Sudo.Rules = defaults("authenticate", "false") }, "sudo", Warning, "asks nobody for a password", "visudo -f /etc/sudoers"},
		{"another account", func(f *Facts) { f.Sudo.Rules = defaults("runas_default", `"www"`) }, "sudo", Warning, "enters another account", "visudo"},
		{"the door is not asked", func(f *Facts) { f.Sudo.Rules = defaults("pam_acct_mgmt", "false") }, "sudo", Broken, "the door stands open", "visudo"},
		{"everything, standing", func(f *Facts) {
			f.Sudo.Rules, f.Wiring.Enforce = free("bob"), false
			f.Sudo.Files["/etc/sudoers.d/bob"] = "bob ALL=(ALL) NOPASSWD: ALL\n"
		}, "sudo", Warning, "bob may run everything", "visudo -f /etc/sudoers.d/bob"},
		{"no nsswitch", func(f *Facts) { f.Names.Err = "no such file" }, "names", Broken, "no such file", "--reinstall"},
		{"systemd not asked", func(f *Facts) { f.Names.NSSwitch = strings.Replace(nsswitch, "files systemd", "files # systemd", 1) }, "names", Broken, "does not ask systemd for passwd,", "nsswitch.conf"},
		{"not asked in time", func(f *Facts) {
			f.Names.NSSwitch = strings.Replace(nsswitch, "group:          files", "group: files [!UNAVAIL=continue NOTFOUND=return]", 1)
		}, "names", Broken, "gives up on group before", "nsswitch.conf"},
		{"nss-systemd missing", func(f *Facts) { f.Names.Systemd = "exit status 2" }, "names", Broken, "nss-systemd does not answer", "libnss-systemd"},
		{"an account unknown", func(f *Facts) { f.Names.Unknown["ana"] = "no source of names knows it" }, "names", Broken, "ana has a grant", "userdbctl user ana"},
		{"a cache", func(f *Facts) { f.Names.Cache = "nscd.service" }, "names", Warning, "nscd.service keeps names", "systemctl disable --now nscd.service"},
		{"sshd broken", func(f *Facts) { f.SSHD.Err = "line 3: Bad configuration option" }, "sshd", Broken, "will not start again", "sshd -t"},
		{"no authority", func(f *Facts) { f.SSHD.CA = "no such file" }, "sshd", Broken, "cannot trust our authority", "curfew-agent join"},
		{"another authority", func(f *Facts) {
			f.SSHD.Settings = strings.Replace(sshdSays, "/etc/curfew/ssh_ca.pub", "/etc/ssh/ca.pub", 1)
		}, "sshd", Broken, "/etc/ssh/ca.pub in place of", "grep"},
		{"no PAM in sshd", func(f *Facts) { f.SSHD.Settings = strings.Replace(sshdSays, "usepam yes", "usepam no", 1) }, "sshd", Broken, "UsePAM no", "sed -i '1i UsePAM yes'"},
		{"no keys in sshd", func(f *Facts) {
			f.SSHD.Settings = strings.Replace(sshdSays, "pubkeyauthentication yes", "pubkeyauthentication no", 1)
		}, "sshd", Broken, "PubkeyAuthentication no", "sed -i '1i PubkeyAuthentication yes'"},
		{"signatures not taken", func(f *Facts) { f.SSHD.CAKind = "ssh-rsa" }, "sshd", Broken, "signed with ssh-rsa", "CASignatureAlgorithms +ssh-rsa"},
		{"sftp past the shell", func(f *Facts) {
			f.SSHD.Settings = strings.Replace(sshdSays, "/usr/lib/openssh/sftp-server", "internal-sftp -l INFO", 1)
		}, "sshd", Warning, "sftp itself", "grep"},
		{"some alone", func(f *Facts) { f.SSHD.Settings += "allowusers bob\nallowusers eve\n" }, "sshd", Warning, "AllowUsers", "grep"},
		{"clock not looked at", func(f *Facts) { f.Clock = Clock{Err: "denied"} }, "clock", Warning, "denied", "timedatectl"},
		{"nothing keeps the clock", func(f *Facts) { f.Clock = Clock{} }, "clock", Warning, "nothing keeps the clock right", "set-ntp true"},
		{"the clock waits", func(f *Facts) { f.Clock = Clock{Service: "chrony.service"} }, "clock", Warning, "chrony.service runs", "systemctl restart chrony.service"},
		{"the clock was set back", func(f *Facts) { f.Agent.At = noon.Add(time.Hour) }, "clock", Broken, "1h0m0s before the latest time", "journalctl"},
		{"the clock is not the control plane's", func(f *Facts) { f.Agent.Clock = "this host's clock is 3m0s behind" }, "clock", Broken, "3m0s behind", "timedatectl set-ntp true"},
		{"the clock is not the control plane's, whoever keeps it", func(f *Facts) {
			f.Agent.Clock, f.Clock.Service = "this host's clock is 3m0s behind", "chrony.service"
		}, "clock", Broken, "3m0s behind", "systemctl restart chrony.service"},
		{"room not looked at", func(f *Facts) { f.Rooms[0] = Room{Path: "/var/lib/curfew", Err: "gone"} }, "room", Warning, "gone", "df"},
		{"full", func(f *Facts) { f.Rooms[0].Free = 1000 }, "room", Broken, "/var/lib/curfew is full", "du -xahS /var/lib/curfew"},
		{"nearly full", func(f *Facts) { f.Rooms[1].Free = 4 << 20 }, "room", Warning, "/run is nearly full: 4 MB of 100", "du"},
		{"no more files", func(f *Facts) { f.Rooms[0].FreeFiles = 3 }, "room", Broken, "only 3 more files", "df -i"},
		{"few more files", func(f *Facts) { f.Rooms[0].FreeFiles = 300 }, "room", Warning, "only 300 more files of", "df -i"},
		{"no systemd", func(f *Facts) { f.Units = Units{Err: "no bus"} }, "units", Warning, "no bus", "systemctl"},
		{"agent gone", set("curfew-agent.service", "LoadState", "not-found"), "units", Broken, "curfew-agent.service is not there", "--reinstall curfew-agent"},
		{"agent stopped", set("curfew-agent.service", "ActiveState", "inactive"), "units", Broken, "nobody with a grant gets in", "systemctl start curfew-agent.service"},
		{"recorder stopped", set("curfew-record.service", "ActiveState", "inactive"), "units", Broken, "nobody with a grant gets in", "systemctl start curfew-record.service"},
		{"agent disabled", set("curfew-agent.service", "UnitFileState", "disabled"), "units", Warning, "after the next boot", "systemctl enable curfew-agent.service"},
		{"timer masked", set("curfew-sweep.timer", "UnitFileState", "masked"), "units", Warning, "is masked", "systemctl unmask curfew-sweep.timer && systemctl enable --now curfew-sweep.timer"},
		{"timer masked until the next boot", set("curfew-sweep.timer", "UnitFileState", "masked-runtime"), "units", Warning, "is masked", "systemctl unmask --runtime curfew-sweep.timer"},
		{"sweep failed", set("curfew-sweep.service", "ActiveState", "failed"), "units", Warning, "curfew-sweep.service failed", "systemctl restart curfew-sweep.service"},
		{"no mount for homes", set("run-curfew-home.mount", "ActiveState", "inactive"), "units", Warning, "is inactive: what people put", "systemctl start run-curfew-home.mount"},
		{"no mount over homes", func(f *Facts) {
			set("run-curfew-home.mount", "ActiveState", "inactive")(f)
			f.Units.Homes = true
		}, "units", Warning, "does not come over homes", "done; systemctl start run-curfew-home.mount"},
		{"overridden", set("curfew-agent.service", "DropInPaths", "/etc/x.conf"), "units", Warning, "overridden by /etc/x.conf", "systemctl revert curfew-agent.service"},
		{"not read again", set("run-curfew-home.mount", "NeedDaemonReload", "yes"), "units", Warning, "goes on with the one before", "systemctl daemon-reload"},
	} {
		f := healthy()
		c.change(&f)
		r := Examine(f)
		i := slices.IndexFunc(r.Findings, func(g Finding) bool {
			return g.Check == c.check && strings.Contains(g.Says, c.says) && strings.Contains(g.Mend, c.mend) && g.Severity == c.severity
		})
		if i < 0 || r.Severity < c.severity || len(r.Findings) > 2 {
			t.Errorf("%s: %+v", c.name, r.Findings)
		}
	}
}

// Monitoring reads the exit code, and the worst comes first.
func TestReport(t *testing.T) {
	f := healthy()
	f.Clock, f.SSHD.Err, f.Agent.Mode = Clock{}, "bad", ""
	r := Examine(f)
	if len(r.Findings) != 3 || r.Findings[0].Severity != Broken || r.Findings[2].Severity != Note || r.Severity.Exit() != 2 {
		t.Errorf("%+v", r)
	}
	for s, want := range map[Severity]int{Fine: 0, Note: 0, Warning: 1, Broken: 2} {
		if s.Exit() != want {
			t.Errorf("%v exits with %d", s, s.Exit())
		}
	}
	b, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(b), `"severity":"broken"`) {
		t.Errorf("%s %v", b, err)
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil || back.Severity != Broken {
		t.Errorf("%+v %v", back, err)
	}
	if err := json.Unmarshal([]byte(`{"severity":"dire"}`), &back); err == nil {
		t.Error("a severity that nobody has is taken")
	}
}

func TestWhatIsPastedIsOneWord(t *testing.T) {
	for in, want := range map[string]string{"db1": "db1", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "/etc/x;id": "'/etc/x;id'"} {
		if got := quote(in); got != want {
			t.Errorf("%q: %s", in, got)
		}
	}
}
