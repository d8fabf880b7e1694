package doctor

import (
	"strings"
	"time"
)

// Clock is what is known of the host's clock.
type Clock struct {
	Err       string
	Synced    bool   // something keeps it right, the kernel says
	Service   string // what would, if it were let
	Container bool   // the clock is the machine's around this one
}

// ahead is by how much the time that the agent trusts may differ from the
// clock's: it writes it down every few seconds.
const ahead = time.Minute

func clock(f Facts) []Finding {
	var found []Finding
	by := f.Agent.At.Sub(f.Now)
	c, mend := f.Clock, "apt-get install -y systemd-timesyncd && timedatectl set-ntp true"
	if c.Service != "" {
		mend = "systemctl restart " + quote(c.Service)
	}
	switch {
	case !f.alive():
	case f.Agent.Clock != "":
		found = append(found, broken(mend, "%s", f.Agent.Clock))
	case by > ahead:
		found = append(found, broken("date; journalctl -g clock -n 20 -u curfew-agent.service",
			"the clock stands %v before the latest time that was seen here, by which grants end: the control plane's time puts that right, once it is heard", by.Round(time.Second)))
	}
	switch {
	case c.Synced || c.Container:
	case c.Err != "":
		found = append(found, warning("timedatectl", "the clock could not be looked at: %s", c.Err))
	case c.Service != "":
		found = append(found, warning(mend, "the clock is not kept right yet: %s runs and has heard no time", c.Service))
	default:
		found = append(found, warning(mend, "nothing keeps the clock right: grants begin and end by it"))
	}
	return found
}

// A Room is the space of a file system that the agent writes to.
type Room struct {
	Path             string
	Err              string
	Free, Total      uint64 // bytes
	FreeFiles, Files uint64 // of which it can hold; 0: it does not count them
}

// What is left at least, before people should know: a part of the whole, but
// no more than an amount that is enough anyhow.
const (
	littleBytes, enoughBytes = 1 << 20, 256 << 20
	littleFiles, enoughFiles = 64, 10000
)

func room(f Facts) []Finding {
	var found []Finding
	for _, r := range f.Rooms {
		look := "du -xahS " + quote(r.Path) + " | sort -h | tail"
		switch {
		case r.Err != "":
			found = append(found, warning("df "+quote(r.Path), "%s could not be looked at: %s", r.Path, r.Err))
		case r.Free < littleBytes:
			found = append(found, broken(look, "%s is full: %d kB are left, so no new grant can be kept there", r.Path, r.Free>>10))
		case r.Free < min(r.Total/20, enoughBytes):
			found = append(found, warning(look, "%s is nearly full: %d MB of %d are left", r.Path, r.Free>>20, r.Total>>20))
		}
		switch {
		case r.Err != "" || r.Files == 0:
		case r.FreeFiles < littleFiles:
			found = append(found, broken("df -i "+quote(r.Path), "%s can hold only %d more files", r.Path, r.FreeFiles))
		case r.FreeFiles < min(r.Files/20, enoughFiles):
			found = append(found, warning("df -i "+quote(r.Path), "%s can hold only %d more files of %d", r.Path, r.FreeFiles, r.Files))
		}
	}
	return found
}

// Units is what systemd says of our units.
type Units struct {
	Err   string
	Text  string // `systemctl show`, of all of them
	Homes bool   // people have homes in the folder that is to be a mount
}

const homes = "run-curfew-home.mount"

// OurUnits are those that systemd is asked about.
var OurUnits = []string{"curfew-agent.service", "curfew-record.service", "curfew-sweep.timer", "curfew-sweep.service", homes}

func units(f Facts) []Finding {
	if f.Units.Err != "" {
		return []Finding{warning("systemctl status curfew-agent.service", "systemd does not tell of our units: %s", f.Units.Err)}
	}
	var found []Finding
	for text := range strings.SplitSeq(strings.TrimSpace(f.Units.Text), "\n\n") {
		u := map[string]string{}
		for line := range strings.Lines(text) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			u[key] = value
		}
		found = append(found, unit(u, f.Units.Homes)...)
	}
	return found
}

// unit judges one of them.
func unit(u map[string]string, inhabited bool) []Finding {
	name := u["Id"]
	bad, lost := warning, "with the agent dead, what has ended stays longer"
	switch name {
	case "curfew-agent.service", "curfew-record.service":
		bad, lost = broken, "nobody with a grant gets in"
	case homes:
		lost = "what people put into their homes may fill /run"
	}
	var found []Finding
	switch state := u["UnitFileState"]; {
	case u["LoadState"] == "not-found":
		return []Finding{bad("apt-get install --reinstall curfew-agent", "%s is not there: %s", name, lost)}
	case u["LoadState"] == "masked" || strings.HasPrefix(state, "masked"):
		mend := "systemctl unmask " + name
		if state == "masked-runtime" {
			mend = "systemctl unmask --runtime " + name
		}
		return []Finding{bad(mend+" && systemctl enable --now "+name, "%s is masked, so it cannot start: %s", name, lost)}
	case state != "enabled" && state != "static":
		found = append(found, warning("systemctl enable "+name, "%s is %s: after the next boot it does not run", name, state))
	}
	switch state := u["ActiveState"]; {
	case state == "failed":
		found = append(found, bad("journalctl -n 20 -u "+name+"; systemctl restart "+name, "%s failed: %s", name, lost))
	case name == "curfew-sweep.service":
	case name == homes && state == "inactive" && inhabited: // systemd would say that it started, and pass over it
		found = append(found, bad(`while [ "$(ls -A /run/curfew/home)" ]; do sleep 5; done; systemctl start `+name,
			"%s is inactive, and does not come over homes that are there: until nobody has one, %s", name, lost))
	case state != "active" && state != "activating" && state != "reloading":
		found = append(found, bad("systemctl start "+name, "%s is %s: %s", name, state, lost))
	}
	if u["DropInPaths"] != "" {
		found = append(found, warning("systemctl revert "+name+" && systemctl daemon-reload", "%s is overridden by %s", name, u["DropInPaths"]))
	}
	if u["NeedDaemonReload"] == "yes" {
		found = append(found, warning("systemctl daemon-reload", "%s was changed, and systemd goes on with the one before", name))
	}
	return found
}
