package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWordsAreReadAsSSHReadsThem(t *testing.T) {
	for line, want := range map[string]call{
		"db1":                               {host: "db1"},
		"db1 uptime":                        {host: "db1", command: []string{"uptime"}},
		"db1 ls -la":                        {host: "db1", command: []string{"ls", "-la"}},
		"db1 -- -x y":                       {host: "db1", command: []string{"-x", "y"}},
		"-- db1 ls":                         {host: "db1", command: []string{"ls"}},
		"-- db1 -v ls":                      {host: "db1", options: []string{"-v"}, command: []string{"ls"}},
		"-- db1 -- ls":                      {host: "db1", command: []string{"ls"}},
		"db1 -tt sudo -i":                   {host: "db1", options: []string{"-tt"}, command: []string{"sudo", "-i"}},
		"-N -L 1:h:2 db1":                   {host: "db1", options: []string{"-N", "-L", "1:h:2"}},
		"db1 -NL 1:h:2":                     {host: "db1", options: []string{"-NL", "1:h:2"}},
		"-L1:h:2 db1 id":                    {host: "db1", options: []string{"-L1:h:2"}, command: []string{"id"}},
		"-vvv -o ForwardAgent=no db1":       {host: "db1", options: []string{"-vvv", "-o", "ForwardAgent=no"}},
		"-x -oRequestTTY=no -s -- db1 sftp": {host: "db1", options: []string{"-x", "-oRequestTTY=no", "-s"}, command: []string{"sftp"}},
	} {
		got, err := read(strings.Fields(line))
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(call{})); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", line, err, diff)
		}
	}
	for _, line := range []string{"", "-N", "-L", "db1 -o", "--"} {
		if got, err := read(strings.Fields(line)); err == nil {
			t.Errorf("%q: %+v", line, got)
		}
	}
}

func TestOurFlagsStandBeforeThoseOfSSH(t *testing.T) {
	for line, want := range map[string]string{
		"ssh db1 -o X=y":             "ssh -- db1 -o X=y",
		"ssh -tt db1":                "ssh -- -tt db1",
		"ssh --home /h db1 -v":       "ssh --home /h -- db1 -v",
		"--home=/h ssh db1":          "--home=/h ssh -- db1",
		"-o json ssh db1":            "-o json ssh -- db1",
		"ssh --role r --why w db1":   "ssh --role r --why w -- db1",
		"ssh --for=2h db1 -v":        "ssh --for=2h -- db1 -v",
		"ssh --help":                 "ssh --help",
		"ssh -h":                     "ssh -h",
		"ssh":                        "ssh",
		"approve ssh":                "approve ssh",
		"--home ssh roles":           "--home ssh roles",
		"audit search ssh -o json x": "audit search ssh -o json x",
	} {
		if got := strings.Join(ours(strings.Fields(line)), " "); got != want {
			t.Errorf("%s: %s", line, got)
		}
	}
}
