package writer

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"curfew.internal/clock"
	"curfew.internal/ledger"
)

// kernel knows every process that is gone as "gone", of session 7, and every
// one that lives as one of session 8.
type kernel struct{}

func (kernel) LabelOf(int) (uint64, bool, error) { return 8, true, nil }
func (kernel) Gone(pid int) (ledger.Process, uint64, bool) {
	return ledger.Process{PID: uint32(pid), Comm: "gone"}, 7, true
}

func open(t *testing.T) (*Writers, string) {
	t.Helper()
	w, err := Open(kernel{}, clock.System{})
	if err != nil {
		t.Fatalf("as root, on Linux 5.15 or later: %v", err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	must(t, w.Mark(dir))
	return w, dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhoeverTouchesAFileIsNamed(t *testing.T) {
	w, dir := open(t)
	file := filepath.Join(dir, "rule")
	sh := func(script string) *exec.Cmd {
		return exec.CommandContext(t.Context(), "/bin/sh", "-c", script, "sh", file)
	}
	for name, script := range map[string]string{
		"writes": `echo x > "$1"`, "is in its place": `echo x > "$1.new"; mv "$1.new" "$1"`, "mode": `touch "$1"; chmod 600 "$1"`,
		"removes": `touch "$1"; rm "$1"`, "moves away": `touch "$1"; mv "$1" "$1.old"`,
	} {
		cmd := sh(script)
		must(t, cmd.Run())
		if got, ok := w.Take(file); !ok || got.Process.Comm != "gone" || got.Session != 7 {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
		if got, ok := w.Take(file); ok {
			t.Errorf("%s: said twice: %+v", name, got)
		}
	}
	// One that lives is read from /proc.
	cmd := sh(`echo x > "$1"; echo; read x || true`)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	_, err = out.Read(make([]byte, 1))
	must(t, err)
	got, ok := w.Take(file)
	if !ok || got.Process.Comm != "sh" || got.Process.PID != uint32(cmd.Process.Pid) || got.Process.PPID != uint32(os.Getpid()) || got.Process.Path == "" || got.Session != 8 {
		t.Errorf("%+v, %v", got, ok)
	}
	must(t, errors.Join(in.Close(), cmd.Wait()))
}

func TestWhatWeTouchOurselvesHasNoWriter(t *testing.T) {
	w, dir := open(t)
	file := filepath.Join(dir, "rule")
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, os.Remove(file))
	if got, ok := w.Take(file); ok {
		t.Errorf("%+v", got)
	}
}

func TestAFolderThatIsTakenAwayNamesWhoTookIt(t *testing.T) {
	w, dir := open(t)
	sub := filepath.Join(dir, "rules")
	must(t, os.Mkdir(sub, 0o700))
	must(t, w.Mark(sub))
	must(t, exec.CommandContext(t.Context(), "mv", sub, sub+".away").Run())
	if got, ok := w.Take(filepath.Join(sub, "rule")); !ok || got.Process.Comm != "gone" {
		t.Errorf("%+v, %v", got, ok)
	}
	// The one in its place is heard of once it is marked.
	must(t, os.Mkdir(sub, 0o700))
	must(t, w.Mark(sub))
	must(t, exec.CommandContext(t.Context(), "touch", sub+"/rule").Run())
	must(t, exec.CommandContext(t.Context(), "touch", sub+".away/other").Run())
	if got, ok := w.Take(filepath.Join(sub, "rule")); !ok || got.Process.Comm != "gone" {
		t.Errorf("%+v, %v", got, ok)
	}
	if got, ok := w.Take(filepath.Join(sub, "other")); ok {
		t.Errorf("where it was moved to is not it: %+v", got)
	}
}

func TestAfterALossNobodyIsNamed(t *testing.T) {
	w, dir := open(t)
	file := filepath.Join(dir, "rule")
	must(t, exec.CommandContext(t.Context(), "touch", file).Run())
	w.Hear()
	b := make([]byte, 24)
	binary.LittleEndian.PutUint32(b, 24)
	b[4] = unix.FANOTIFY_METADATA_VERSION
	binary.LittleEndian.PutUint64(b[8:], unix.FAN_Q_OVERFLOW)
	w.take(b)
	if got, ok := w.Take(file); ok {
		t.Errorf("%+v", got)
	}
}

func FuzzTake(f *testing.F) {
	f.Add([]byte{24, 0, 0, 0, 3, 0, 24, 0})
	f.Fuzz(func(_ *testing.T, b []byte) {
		w := &Writers{dirs: map[string]string{"1 00": "/x"}}
		w.name(b)
		w.infos(b)
	})
}

func TestNilHearsOfNothing(t *testing.T) {
	var w *Writers
	must(t, w.Mark(t.TempDir()))
	w.Hear()
	if _, ok := w.Take("/etc/passwd"); ok {
		t.Error("named")
	}
}

func TestWhomSomebodyElseToldOfIsNamed(t *testing.T) {
	w, dir := open(t)
	cmd := exec.CommandContext(t.Context(), "/bin/true")
	must(t, cmd.Run())
	for _, pid := range []int{cmd.Process.Pid, os.Getpid()} {
		w.Note(dir, pid)
		got, ok := w.Take(filepath.Join(dir, "scope"))
		if want := map[bool]uint64{true: 8, false: 7}[pid == os.Getpid()]; !ok || got.Process.PID != uint32(pid) || got.Session != want {
			t.Errorf("process %d: %+v, %v", pid, got, ok)
		}
	}
	w.Note(dir, os.Getpid())
	w.Note(dir, 0)
	if got, ok := w.Take(dir); ok {
		t.Errorf("named whom nobody knows: %+v", got)
	}
}

func TestWhomWeStartedIsOurs(t *testing.T) {
	us := uint32(os.Getpid())
	for _, c := range []struct {
		name string
		w    Writer
		want bool
	}{
		{"our child", Writer{Process: ledger.Process{PID: 7, PPID: us}}, true},
		{"somebody else's", Writer{Process: ledger.Process{PID: 7, PPID: 1, Comm: "curfew-agent"}}, false},
		{"our child's number, in a session", Writer{ledger.Process{PID: 7, PPID: us}, 9}, false},
	} {
		if got := c.w.Ours(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// within knows who is gone by the numbers of a namespace within ours, as one may
// choose them there.
type within struct{ kernel }

func (within) Gone(int) (ledger.Process, uint64, bool) {
	return ledger.Process{PID: 2, PPID: uint32(os.Getpid()), Comm: "gone"}, 0, true
}

func TestNumbersOfAnotherNamespaceAreNotOurs(t *testing.T) {
	w, dir := open(t)
	w.kernel = within{}
	file := filepath.Join(dir, "rule")
	must(t, exec.CommandContext(t.Context(), "touch", file).Run())
	if got, ok := w.Take(file); !ok || got.Process.Comm != "gone" || got.Ours() {
		t.Errorf("%+v, %v", got, ok)
	}
}
