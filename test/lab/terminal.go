package lab

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// A Terminal is one that a person sits at; tmux draws it.
type Terminal struct {
	person *Person
	socket string
}

// Terminal opens a terminal in which curfew runs as the person. Dir is where
// its socket lies.
func (p *Person) Terminal(ctx context.Context, dir string, args ...string) (*Terminal, error) {
	t := &Terminal{p, filepath.Join(dir, p.Name)}
	cmd := p.command(ctx, args...)
	words := append([]string{"-f", "/dev/null", "new-session", "-d", "-x", "220", "-y", "50", "--", "env", "-i", "TERM=screen"}, cmd.Env...)
	return t, t.tmux(ctx, append(words, cmd.Args...)...).Run()
}

func (t *Terminal) tmux(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "tmux", append([]string{"-S", t.socket}, args...)...)
}

// Type types a line, and Enter.
func (t *Terminal) Type(ctx context.Context, line string) error {
	if err := t.tmux(ctx, "send-keys", "-l", "--", line).Run(); err != nil {
		return err
	}
	return t.Press(ctx, "Enter")
}

// Press presses a key that tmux has a name for.
func (t *Terminal) Press(ctx context.Context, key string) error {
	return t.tmux(ctx, "send-keys", key).Run()
}

// Screen is what stands on the terminal.
func (t *Terminal) Screen(ctx context.Context) (string, error) {
	out, err := t.tmux(ctx, "capture-pane", "-p", "-J", "-S", "-").Output()
	if err != nil {
		return "", said(err)
	}
	return strings.TrimRight(string(out), "\n"), nil
}

// Shows returns what came on the screen after the mark, once all of the words
// are there.
func (t *Terminal) Shows(ctx context.Context, after string, words ...string) (string, error) {
	screen, err := t.Screen(ctx)
	if err != nil {
		return "", err
	}
	_, now, _ := strings.Cut(screen, after)
	for _, w := range words {
		if !strings.Contains(now, w) {
			return "", fmt.Errorf("%q is not on the terminal of %s:\n%s", w, t.person.Name, screen)
		}
	}
	return now, nil
}

// Close ends what runs in the terminal.
func (t *Terminal) Close(ctx context.Context) error { return t.tmux(ctx, "kill-server").Run() }
