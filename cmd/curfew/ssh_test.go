package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
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

// proven is the API of somebody whose earlier proof counts; her request is denied.
type proven struct {
	apiconnect.CurfewClient
	asked []*api.CreateRequestRequest
}

func (*proven) Whoami(context.Context, *api.WhoamiRequest) (*api.WhoamiReply, error) {
	return &api.WhoamiReply{Person: &api.Person{Name: "ana"}, Proof: &api.Proof{Factor: "totp", For: "request"}}, nil
}

func (*proven) ListRequests(context.Context, *api.ListRequestsRequest) (*api.ListRequestsReply, error) {
	return &api.ListRequestsReply{}, nil
}

func (c *proven) CreateRequest(_ context.Context, m *api.CreateRequestRequest) (*api.Request, error) {
	c.asked = append(c.asked, m)
	return &api.Request{Id: "r-1", State: "denied", Proof: &api.Proof{Factor: "totp", For: "request"}}, nil
}

// Who asks by logging in types no code either where none is needed.
func TestALoginAsksOnAnEarlierProof(t *testing.T) {
	t.Setenv(codeName, "")
	in, err := os.Open(os.DevNull) // where nobody types a code
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	c, told := &proven{}, &strings.Builder{}
	err = sshCmd{Role: "ops", For: length(time.Hour)}.given(t.Context(), &program{in: in, err: told}, c, "db1")
	if err == nil || err.Error() != "request r-1 was denied" {
		t.Error(err)
	}
	if len(c.asked) != 1 || c.asked[0].Code != "" || !strings.HasPrefix(told.String(), "No code was needed: you proved yourself with totp ") {
		t.Errorf("%v: %s", c.asked, told)
	}
}
