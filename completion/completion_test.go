package completion

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"curfew.internal/test/need"
)

func TestBashCompletesWithIt(t *testing.T) {
	need.Program(t, "bash")
	var b strings.Builder
	if err := (Cmd{Shell: "bash"}).Print(&b); err != nil {
		t.Fatal(err)
	}
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("bash", "-c", b.String()+"complete -p "+filepath.Base(path)).CombinedOutput()
	if err != nil || !strings.Contains(string(out), path) {
		t.Errorf("%v: %s", err, out)
	}
}

func TestTheShellIsThatOfTheEnvironment(t *testing.T) {
	t.Setenv("SHELL", "/usr/bin/fish")
	var b strings.Builder
	if err := (Cmd{}).Print(&b); err != nil || !strings.Contains(b.String(), "commandline") {
		t.Errorf("%v: %s", err, b.String())
	}
	t.Setenv("SHELL", "/bin/csh")
	if err := (Cmd{}).Print(&b); err == nil || !strings.Contains(err.Error(), "bash, zsh or fish") {
		t.Errorf("csh: %v", err)
	}
}
