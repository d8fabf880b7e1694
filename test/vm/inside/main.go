// Inside is the harness's hand in a guest. As the first process it loads what
// the disk needs and goes over to it; as a service it runs the scripts that
// come down the serial line, in no login of anybody's. It opens no port.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// line is the name of the serial line that scripts come by.
const line = "lab.0"

type question struct {
	ID     int
	Script string
	Input  []byte
}

type answer struct {
	ID   int
	Out  string
	Code int
}

func main() {
	run := serve
	if os.Getpid() == 1 {
		run = boot
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "inside: "+err.Error())
		os.Exit(1)
	}
}

// boot is the work of an initramfs.
func boot() error {
	if err := errors.Join(os.MkdirAll("/dev", 0o755), os.MkdirAll("/disk", 0o755), unix.Mount("dev", "/dev", "devtmpfs", 0, "")); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	modules, err := filepath.Glob("/modules/*")
	if err != nil {
		return err
	}
	slices.Sort(modules)
	for _, name := range modules {
		if err := load(name); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	for range 500 {
		err = unix.Mount("/dev/vda", "/disk", "ext4", 0, "")
		if !errors.Is(err, unix.ENOENT) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("mount the disk: %w", err)
	}
	err = errors.Join(unix.Mount("/dev", "/disk/dev", "", unix.MS_MOVE, ""), os.Chdir("/disk"),
		unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), os.Chdir("/"))
	if err != nil {
		return fmt.Errorf("go over to the disk: %w", err)
	}
	return unix.Exec("/sbin/init", []string{"/sbin/init"}, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
}

func load(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	flags := 0
	if strings.HasSuffix(name, ".xz") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	return errors.Join(unix.FinitModule(int(f.Fd()), "", flags), f.Close())
}

// serve answers until the guest ends.
func serve() error {
	if err := network(); err != nil {
		return err
	}
	port, err := find()
	if err != nil {
		return err
	}
	var one sync.Mutex
	say := func(a answer) {
		b, _ := json.Marshal(a) // of strings and numbers: it has no error
		one.Lock()
		defer one.Unlock()
		_, _ = port.Write(append(b, '\n')) // nobody is there to tell
	}
	say(answer{}) // we are here
	in := bufio.NewReader(port)
	for {
		text, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if err != nil {
			return err
		}
		var q question
		if err := json.Unmarshal(text, &q); err != nil {
			return err
		}
		go func() { say(run(q)) }() // ends with its script, or with the guest
	}
}

func run(q question) answer {
	var out bytes.Buffer
	cmd := exec.Command("/bin/bash", "-c", q.Script)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(q.Input), &out, &out
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	cmd.WaitDelay = time.Second
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C"}
	err := cmd.Run()
	a := answer{ID: q.ID, Out: out.String()}
	if ended := new(exec.ExitError); errors.As(err, &ended) {
		a.Code = ended.ExitCode()
	} else if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		a.Out, a.Code = err.Error(), -1
	}
	return a
}

// network gives the guest the address that its command line names.
func network() error {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	for word := range strings.FieldsSeq(string(b)) {
		if address, ok := strings.CutPrefix(word, "lab.address="); ok {
			out, err := exec.Command("/bin/sh", "-c", "ip link set lo up; ip addr add "+address+"/24 dev eth0; ip link set eth0 up").CombinedOutput()
			if err != nil {
				return fmt.Errorf("set the address: %w: %s", err, out)
			}
		}
	}
	return nil
}

func find() (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err == nil && strings.TrimSpace(string(b)) == line {
			return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(name)), os.O_RDWR, 0)
		}
	}
	return nil, errors.New("there is no serial line " + line)
}
