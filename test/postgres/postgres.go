// Package postgres runs a real PostgreSQL for tests, on a socket in a folder
// of its own and on no port.
//
// It uses none that the machine may have, and leaves nothing behind.
package postgres

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// superuser is who makes databases; tests are its owner, too.
const superuser = "curfew"

// A Server is a running PostgreSQL.
type Server struct {
	dir  string
	cmd  *exec.Cmd
	said sync.WaitGroup // its log is read to the end
	made atomic.Int64   // databases
}

// Start starts a PostgreSQL with the settings, such as "fsync=off". It has
// those of a test, which need not survive the machine, unless some are given.
func Start(ctx context.Context, settings ...string) (*Server, error) {
	place := ""
	if len(settings) == 0 {
		settings = []string{"fsync=off", "full_page_writes=off"}
		place = memory()
	}
	dir, err := os.MkdirTemp(place, "curfew-postgres-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir}
	if err := s.start(ctx, settings); err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w", err), os.RemoveAll(dir))
	}
	return s, nil
}

// memory is a folder that is no disk, where there is one: a database for each
// test is some hundred files.
func memory() string {
	const shared = "/dev/shm"
	if info, err := os.Stat(shared); err != nil || !info.IsDir() {
		return ""
	}
	return shared
}

func (s *Server) start(ctx context.Context, settings []string) error {
	who, err := owner()
	if err != nil {
		return err
	}
	if who != nil {
		if err := os.Chown(s.dir, int(who.Uid), int(who.Gid)); err != nil {
			return err
		}
	}
	initdb, err := s.program(ctx, who, "initdb", "--pgdata", s.data(), "--username", superuser, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	if err != nil {
		return err
	}
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	args := []string{"-D", s.data(), "-k", s.dir, "-c", "listen_addresses="}
	for _, v := range settings {
		args = append(args, "-c", v)
	}
	// Not bound to ctx: killed, it would leave its shared memory.
	if s.cmd, err = s.program(context.WithoutCancel(ctx), who, "postgres", args...); err != nil {
		return err
	}
	return s.begin()
}

// begin starts the server and waits until it takes connections.
func (s *Server) begin() error {
	log, err := s.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	ready, said := make(chan struct{}), &strings.Builder{}
	s.said.Go(func() {
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if strings.Contains(lines.Text(), "ready to accept connections") {
				close(ready)
				break
			}
			fmt.Fprintln(said, lines.Text())
		}
		_, _ = io.Copy(io.Discard, log)
	})
	ended := make(chan struct{})
	go func() { s.said.Wait(); close(ended) }()
	select {
	case <-ready:
		return nil
	case <-ended:
		return fmt.Errorf("it ended: %w: %s", s.cmd.Wait(), said)
	}
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// owner is whom the server runs as, who may not be root; nil for ourselves.
func owner() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // nobody else
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// program is one of PostgreSQL's, which Debian keeps from the path.
func (s *Server) program(ctx context.Context, who *syscall.Credential, name string, args ...string) (*exec.Cmd, error) {
	file, err := Program(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, file, args...)
	cmd.Dir, cmd.Env = s.dir, []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"}
	// It ends with us, also when we are killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who, Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	return cmd, nil
}

// Program finds a program of PostgreSQL.
func Program(name string) (string, error) {
	all, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(all) == 0 {
		return exec.LookPath(name)
	}
	return slices.Max(all), nil
}

// URL names one of the server's databases.
func (s *Server) URL(database string) string {
	return "postgres://" + superuser + "@/" + database + "?host=" + s.dir
}

// Database makes a new database, a copy of another unless that is empty, and
// returns its name.
func (s *Server) Database(ctx context.Context, from string) (string, error) {
	name := "t" + strconv.FormatInt(s.made.Add(1), 10)
	args := []string{name}
	if from != "" {
		args = append(args, "--template", from, "--strategy", "file_copy")
	}
	return name, s.do(ctx, "createdb", args...)
}

// Drop removes a database, whoever has it open.
func (s *Server) Drop(ctx context.Context, database string) error {
	return s.do(ctx, "dropdb", "--force", database)
}

// Dump writes what a database holds into a file.
func (s *Server) Dump(ctx context.Context, database, file string) error {
	return s.do(ctx, "pg_dump", "--format", "custom", "--file", file, database)
}

// Restore puts what a dump holds in place of what the database has.
func (s *Server) Restore(ctx context.Context, database, file string) error {
	return s.do(ctx, "pg_restore", "--clean", "--if-exists", "--exit-on-error", "--dbname", database, file)
}

// do runs one of PostgreSQL's programs on the server.
func (s *Server) do(ctx context.Context, program string, args ...string) error {
	cmd, err := s.program(ctx, nil, program, append([]string{"--host", s.dir, "--username", superuser}, args...)...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, out)
	}
	return nil
}

// Stop stops the server and removes what it had.
func (s *Server) Stop() error {
	err := s.cmd.Process.Signal(syscall.SIGQUIT) // at once: nothing is to be kept
	s.said.Wait()
	_ = s.cmd.Wait() // says that it was stopped
	return errors.Join(err, os.RemoveAll(s.dir))
}
