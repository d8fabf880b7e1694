package packaging

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
)

// TestMain lets a copy of this program be somebody's hands: under the name of
// curfew it runs the real one, and types the code of the second factor where
// that asks for it, as people do. Under that of receiver it is told things.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "receiver" {
		fmt.Fprintln(os.Stderr, receive())
		os.Exit(1)
	}
	if filepath.Base(os.Args[0]) == "curfew" {
		err := hands(os.Args[1:])
		var ended *exec.ExitError
		if errors.As(err, &ended) {
			os.Exit(ended.ExitCode())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	tidy()
	os.Exit(code)
}

const realCurfew = "/usr/bin/curfew"

// hands run the real curfew. What it asks for is known only once it has: it
// is run again then, with the code.
func hands(args []string) error {
	if len(args) > 1 && args[0] == "login" {
		return enrol(args)
	}
	if len(args) > 0 && args[0] == "ssh" {
		cmd := exec.Command(realCurfew, args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		return cmd.Run()
	}
	var out, errs bytes.Buffer
	cmd := exec.Command(realCurfew, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil && strings.Contains(errs.String(), "the code of your second factor is needed") {
		code, bad := nextCode()
		if bad != nil {
			return bad
		}
		out.Reset()
		errs.Reset()
		cmd = exec.Command(realCurfew, args...)
		cmd.Env = append(os.Environ(), "CURFEW_CODE="+code)
		cmd.Stdout, cmd.Stderr = &out, &errs
		err = cmd.Run()
	}
	_, bad := os.Stderr.Write(errs.Bytes())
	_, worse := os.Stdout.Write(out.Bytes())
	return errors.Join(err, bad, worse)
}

// enrol reads the new factor off the screen, as a phone does, and types its
// first code.
func enrol(args []string) error {
	cmd := exec.Command(realCurfew, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	screen, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		return err
	}
	var shown string
	if _, err := fmt.Fscanln(screen, &shown); err != nil {
		return fmt.Errorf("%w: %s", errors.Join(err, cmd.Wait()), errs.String())
	}
	u, err := url.Parse(shown)
	if err != nil {
		return err
	}
	if err := os.WriteFile(phone("secret"), []byte(u.Query().Get("secret")), 0o600); err != nil {
		return err
	}
	code, err := nextCode()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(in, code); err != nil {
		return err
	}
	if _, err := os.Stdout.ReadFrom(screen); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, errs.String())
	}
	return nil
}

func phone(name string) string { return filepath.Join(os.Getenv("HOME"), "."+name) }

// nextCode is a code that was not used: each is good once, and the next one
// is good already.
func nextCode() (string, error) {
	secret, err := os.ReadFile(phone("secret"))
	if err != nil {
		return "", err
	}
	used := int64(0)
	if b, err := os.ReadFile(phone("used")); err == nil {
		if used, err = strconv.ParseInt(string(b), 10, 64); err != nil {
			return "", err
		}
	}
	const period = 30
	now := time.Now().Unix() / period
	next := max(used+1, now)
	if next > now+1 {
		<-time.After(time.Until(time.Unix((next-1)*period, 0)))
	}
	if err := os.WriteFile(phone("used"), strconv.AppendInt(nil, next, 10), 0o600); err != nil {
		return "", err
	}
	return totp.GenerateCode(string(secret), time.Unix(next*period, 0))
}
