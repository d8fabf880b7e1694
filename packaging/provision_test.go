package packaging

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"curfew.internal/test/lab"
	"curfew.internal/test/need"
)

// vagrant stands in for Vagrant: it says which machine the Vagrantfile wants
// provisioned by what.
const vagrant = `require "json"
STEPS = []
class Seen
  def initialize(machine) = @machine = machine
  def method_missing(name, *args, **keys, &block)
    case name
    when :define then block.call(Seen.new(args[0]))
    when :provision then STEPS << {machine: @machine, path: keys[:path], inline: keys[:inline], args: keys[:args] || []}
    end
    self
  end
  def respond_to_missing?(*) = true
end
module Vagrant
  def self.configure(_) = yield(Seen.new(""))
end
load "./Vagrantfile"
puts JSON.generate(STEPS)
`

type provision struct {
	Machine, Path, Inline string
	Args                  []string
}

// TestProvision does what the Vagrantfile asks for, on other machines.
func TestProvision(t *testing.T) {
	need.Nspawn(t)
	need.Program(t, "dpkg-deb", "gcc", "objdump", "ruby")
	cmd := exec.CommandContext(t.Context(), "ruby", "-w", "-e", vagrant)
	cmd.Dir = repository(t)
	var steps []provision
	if err := json.Unmarshal([]byte(run(t, cmd)), &steps); err != nil || len(steps) < 5 {
		t.Fatalf("%v %+v", err, steps)
	}
	var files []lab.File
	for _, f := range packages(t, present(t), "*_amd64.deb") {
		files = append(files, lab.File{Path: "/vagrant/dist/" + filepath.Base(f), From: f, Mode: 0o644})
	}
	l, err := lab.New(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	hosts := map[string]*lab.Host{}
	sh := func(name, script string) string {
		t.Helper()
		out, err := hosts[name].Sh(t.Context(), script)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, name := range []string{"plane", "db1", "web1"} {
		if hosts[name], err = l.Host(t.Context(), name, files...); err != nil {
			t.Fatal(err)
		}
		sh(name, "echo "+hosts["plane"].Address+" curfew.example >>/etc/hosts")
		if name != "plane" { // the folder that machines of Vagrant's share
			file := "/vagrant/.vagrant/tokens/" + name
			if err := hosts[name].Put(t.Context(), file, sh("plane", "cat "+file), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		// Again, as by `vagrant provision`: nothing that is there is lost.
		for range 2 {
			for _, s := range steps {
				if s.Machine == "" {
					sh(name, s.Inline)
				}
				if s.Machine != name {
					continue
				}
				if err := hosts[name].Put(t.Context(), "/tmp/provision", read(t, filepath.Join(repository(t), s.Path)), 0o755); err != nil {
					t.Fatal(err)
				}
				sh(name, "/tmp/provision '"+strings.Join(s.Args, "' '")+"'")
			}
		}
		if name == "plane" {
			continue
		}
		if _, err := hosts[name].Sh(t.Context(), "test -e /vagrant/.vagrant/tokens/"+name+".used"); err != nil {
			t.Errorf("%s keeps a token that was used: %v", name, err)
		}
	}
	if out := sh("plane", "test -s /vagrant/.vagrant/tokens/cleo && curfew version && systemctl is-active curfew-server"); !strings.Contains(out, "active") {
		t.Error(out)
	}
	for _, name := range []string{"db1", "web1"} {
		if err := lab.Until(t.Context(), name+"'s uplink", func() error {
			_, err := hosts[name].Sh(t.Context(), "curfew-agent status | grep 'connected to'")
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}
