package agent

import (
	"path"
	"slices"
	"strings"

	"curfew.internal/agent/watch"
	"curfew.internal/ledger"
)

// What takes work from others and does it with processes of its own: none of
// those is a descendant of a session, and none carries its label.
var (
	takers = map[string]string{
		"/run/dbus/system_bus_socket": "D-Bus", "/run/systemd/private": "systemd", "/run/docker.sock": "docker", "/run/containerd/containerd.sock": "containerd",
		"/run/podman/podman.sock": "podman", "/run/crio/crio.sock": "cri-o", "/run/libvirt/libvirt-sock": "libvirt", "/run/snapd.socket": "snapd",
		"/var/lib/lxd/unix.socket": "lxd", "/var/lib/incus/unix.socket": "incus",
	}
	handers = map[string]string{
		"systemd-run": "systemd", "busctl": "D-Bus", "dbus-send": "D-Bus", "gdbus": "D-Bus", "machinectl": "systemd", "at": "at", "batch": "at",
		"crontab": "cron", "docker": "docker", "podman": "podman", "ctr": "containerd", "nerdctl": "containerd", "virsh": "libvirt", "lxc": "lxd", "incus": "incus",
	}
	unitVerbs = []string{"start", "restart", "try-restart", "reload", "reload-or-restart", "try-reload-or-restart", "enable", "reenable", "isolate", "edit", "link"}
	readers   = []struct{ folder, who string }{
		{"/var/spool/cron", "cron"},
		{"/var/spool/at", "at"},
		{"/etc/cron", "cron"},
		{"/etc/anacrontab", "cron"},
		{"/etc/systemd", "systemd"},
		{"/run/systemd", "systemd"},
		{"/usr/lib/systemd", "systemd"},
		{"/usr/local/lib/systemd", "systemd"},
		{"/etc/udev", "udev"},
	}
)

// handedTo says who was given work that goes on outside of the session, as far
// as an entry shows it.
func handedTo(e ledger.Entry) string {
	switch e.Kind { //nolint:exhaustive // the others hand nothing over
	case ledger.Exec:
		return handedByProgram(e.Process)
	case ledger.Connect:
		return handedByConnection(e.Object)
	case ledger.Open, ledger.Named:
		if e.Kind == ledger.Named && !strings.HasPrefix(e.Text, watch.Put) {
			return ""
		}
		for _, r := range readers {
			if strings.HasPrefix(e.Object, r.folder) {
				return r.who
			}
		}
	}
	return ""
}

func handedByProgram(p *ledger.Process) string {
	names := []string{path.Base(p.Path), path.Base(p.Script)}
	if len(p.Argv) > 0 {
		names = append(names, path.Base(p.Argv[0])) // of a copy under another name
	}
	for _, name := range names {
		if who := handers[name]; who != "" {
			return who
		}
	}
	if slices.Contains(names, "systemctl") && slices.ContainsFunc(p.Argv, func(w string) bool { return slices.Contains(unitVerbs, w) }) {
		return "systemd"
	}
	return ""
}

func handedByConnection(peer string) string {
	socket, local := strings.CutPrefix(peer, "unix:")
	if !local {
		address, _ := strings.CutPrefix(peer, "tcp://")
		if strings.HasSuffix(address, ":22") && (strings.HasPrefix(address, "127.") || strings.HasPrefix(address, "[::1]")) {
			return "sshd"
		}
		return ""
	}
	socket = strings.TrimPrefix(socket, "/var")
	switch rest, own := strings.CutPrefix(socket, "/run/user/"); {
	case takers[socket] != "":
		return takers[socket]
	case takers["/var"+socket] != "":
		return takers["/var"+socket]
	case own && strings.HasSuffix(rest, "/bus"):
		return "D-Bus"
	case own && strings.HasSuffix(rest, "/systemd/private"):
		return "systemd"
	case strings.HasPrefix(socket, "/tmp/tmux-"):
		return "tmux"
	case strings.HasPrefix(socket, "/run/screen/"):
		return "screen"
	}
	return ""
}

// outside is what an entry says of work that was handed over.
func outside(e ledger.Entry) string {
	who := handedTo(e)
	if who == "" {
		return e.Text
	}
	said := "handed over to " + who + ": what it does is not of this session"
	if e.Text == "" {
		return said
	}
	return e.Text + "; " + said
}
