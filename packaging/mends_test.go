package packaging

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// archive makes a folder of packages one that apt installs from, and the only
// one that it knows.
const archive = `cd /srv && for d in *.deb; do
	dpkg-deb -f "$d" && printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$d" "$(stat -c %s "$d")" "$(sha256sum "$d" | cut -d' ' -f1)" || exit
done >Packages
echo 'deb [trusted=yes] file:/srv ./' >/etc/apt/sources.list.d/srv.list
apt-get -qq update -o Dir::Etc::SourceList=sources.list.d/srv.list -o Dir::Etc::SourceParts=-`

// never has a host on which no package starts a service again (invoke-rc.d(8)).
const never = `printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d`

// mends types what the doctor prints where apt has to mend. At the end every
// version is what it was.
func (s *life) mends(t *testing.T) {
	t.Helper()
	before := s.sleepers(t, s.db1)
	s.replace(t, s.plane, "curfew-server", "0.9.2")
	s.ready(t)
	s.connected(t)
	s.sh(t, s.db1, "("+archive+" && "+never+") 2>&1")
	const older = "and the control plane 0.9.2"
	s.sh(t, s.db1, "("+s.told(t, "version", older)+") 2>&1") // as the doctor of the version before has it
	s.mended(t, "version", "the agent that runs is 0.9.1, and the one installed is 0.9.2")
	s.gone(t, "version", older)
	s.sh(t, s.db1, "rm /usr/sbin/policy-rc.d /usr/lib/x86_64-linux-gnu/security/pam_curfew.so")
	s.mended(t, "wiring", "pam_curfew.so is in none of the folders")
	// A living agent would put it there again.
	s.sh(t, s.db1, "systemctl stop curfew-agent curfew-sweep.timer && rm /usr/lib/systemd/system/curfew-sweep.timer && systemctl daemon-reload")
	s.mended(t, "units", "curfew-sweep.timer is not there")
	s.mended(t, "units", "curfew-sweep.timer is inactive")
	s.mended(t, "units", "curfew-agent.service is inactive")
	if now := s.sleepers(t, s.db1); now != before {
		t.Errorf("sessions were %q and are %q", before, now)
	}
	s.sh(t, s.db1, "rm /etc/apt/sources.list.d/srv.list")
	s.replace(t, s.db1, "curfew-agent", "0.9.1")
	s.replace(t, s.plane, "curfew-server", "0.9.1")
	s.ready(t)
	s.connected(t)
	s.works(t)
}

// mended waits for a finding of db1's doctor, types the command beside it, and
// waits for its end.
func (s *life) mended(t *testing.T, check, says string) {
	t.Helper()
	s.sh(t, s.db1, "("+s.told(t, check, says)+") 2>&1")
	s.gone(t, check, says)
}

// told waits for a finding, and returns the command beside it.
func (s *life) told(t *testing.T, check, says string) (mend string) {
	t.Helper()
	s.until(t, "the finding", func() (err error) {
		said := ""
		if mend, said, err = s.finding(t, check, says); err == nil && mend == "" {
			err = fmt.Errorf("nothing of %s says %q in %s", check, says, said)
		}
		return err
	})
	return mend
}

// gone waits for a finding's end.
func (s *life) gone(t *testing.T, check, says string) {
	t.Helper()
	s.until(t, "the end of "+says, func() error {
		mend, said, err := s.finding(t, check, says)
		if err == nil && mend != "" {
			err = fmt.Errorf("it is there: %s", said)
		}
		return err
	})
}

// finding looks for one among all that db1's doctor says.
func (s *life) finding(t *testing.T, check, says string) (mend, said string, err error) {
	t.Helper()
	out, err := s.db1.Sh(t.Context(), "curfew-agent doctor --output json; true")
	if err != nil {
		return "", "", err
	}
	var report struct {
		Findings []struct{ Check, Says, Mend string }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return "", "", fmt.Errorf("%w: %s", err, out)
	}
	for _, f := range report.Findings {
		if f.Check == check && strings.Contains(f.Says, says) {
			mend = f.Mend
		}
	}
	return mend, fmt.Sprintf("%+v", report.Findings), nil
}
