package doctor

import (
	"strings"
	"time"
)

// Agent is what the running agent said of itself last, and who this host is.
type Agent struct {
	Joined    string    // why the host is in no fleet, or nothing
	Ends      time.Time // of the host's certificate
	Server    string    // HOST:PORT of the control plane
	Said      string    // why nothing is known of the agent, or nothing
	At        time.Time // when it spoke, by the time that it trusts
	Version   string
	Plane     string // version of the control plane, once it was heard
	Connected bool
	Refused   string // by the control plane
	Clock     string // what is wrong with the clock, by the control plane's
	Mode      string // what its kernel gives, as its self-test proved
}

// Old is from when on what the agent said tells nothing of the present.
const Old = 15 * time.Second

// alive says whether the agent speaks.
func (f Facts) alive() bool {
	return f.Agent.Said == "" && f.Now.Sub(f.Agent.At) < Old
}

// joining is what an administrator types on her computer.
func joining(host string) string {
	return "curfew hosts token --host " + quote(host) + " | ssh root@" + quote(host) + " 'curfew-agent join --name " + quote(host) + " && systemctl restart curfew-agent'"
}

func agent(f Facts) []Finding {
	a := f.Agent
	switch {
	case a.Joined != "":
		return []Finding{broken(joining(f.Host), "this host has no whole identity in a fleet, so nothing is granted here: %s", a.Joined)}
	case a.Said != "":
		return []Finding{broken("systemctl restart curfew-agent.service", "nothing is known of the agent: %s", a.Said)}
	case !f.alive():
		return []Finding{broken("systemctl restart curfew-agent.service",
			"the agent was last alive at %s: nobody with a grant gets in", a.At.UTC().Format(time.RFC3339))}
	}
	return nil
}

// soon is when a certificate that lives for a day should have been renewed.
const soon = 4 * time.Hour

func uplink(f Facts) []Finding {
	a := f.Agent
	if a.Joined != "" {
		return nil // said by another check
	}
	var found []Finding
	switch left := a.Ends.Sub(f.Now); {
	case left <= 0:
		return []Finding{broken(joining(f.Host), "the host's certificate ran out at %s, so the control plane does not take its connections", a.Ends.UTC().Format(time.RFC3339))}
	case left < soon:
		found = append(found, warning("systemctl restart curfew-agent.service",
			"the host's certificate ends at %s and was not renewed", a.Ends.UTC().Format(time.RFC3339)))
	}
	i := max(0, strings.LastIndex(a.Server, ":"))
	host, port := strings.Trim(a.Server[:i], "[]"), strings.TrimPrefix(a.Server[i:], ":")
	switch {
	case !f.alive():
	case a.Refused != "":
		found = append(found, broken(joining(f.Host), "the control plane refuses this host: %s", a.Refused))
	case !a.Connected:
		found = append(found, broken("timeout 5 bash -c "+quote("exec 3<>/dev/tcp/"+host+"/"+port)+" && journalctl -n 20 -u curfew-agent.service",
			"the control plane at %s is not heard: what was granted goes on until its end, and nothing new or revoked arrives", a.Server))
	}
	return found
}

func version(f Facts) []Finding {
	a := f.Agent
	if !f.alive() {
		return nil
	}
	var found []Finding
	if a.Version != f.Version {
		found = append(found, warning("systemctl restart curfew-agent.service",
			"the agent that runs is %s, and the one installed is %s", a.Version, f.Version))
	}
	if a.Plane != "" && a.Plane != a.Version {
		found = append(found, warning("apt-get install --only-upgrade curfew-agent",
			"the agent is %s, and the control plane %s: they work together if one version lies between them; where the control plane's is the older one, that is brought up", a.Version, a.Plane))
	}
	return found
}

// Kernel is what the kernel gives.
type Kernel struct {
	Release string
	BTF     bool   // types for BPF programs
	LSMs    string // those in use, as /sys/kernel/security/lsm lists them; empty: not known
}

func kernel(f Facts) []Finding {
	var found []Finding
	if !f.Kernel.BTF {
		found = append(found, broken("uname -r; ls /sys/kernel/btf; grep CONFIG_DEBUG_INFO_BTF= /boot/config-$(uname -r)",
			"the kernel %s has no BTF, so the agent cannot label sessions: boot one of the distribution's own", f.Kernel.Release))
	}
	if !f.alive() {
		return found
	}
	has := map[string]bool{}
	for part := range strings.SplitSeq(f.Agent.Mode, "+") {
		has[part] = true
	}
	if !has["lsm"] && !has["fmod_ret"] {
		mend := "bpftool feature probe kernel | grep -i lsm"
		if f.Kernel.LSMs != "" && !strings.Contains(","+f.Kernel.LSMs+",", ",bpf,") {
			mend = "sed -i 's/^GRUB_CMDLINE_LINUX=\"/&lsm=" + f.Kernel.LSMs + ",bpf /' /etc/default/grub && update-grub && reboot"
		}
		found = append(found, note(mend, "the kernel takes no programs that refuse (mode %s): a session that is root may stop the agent before its end", f.Agent.Mode))
	}
	return found
}
