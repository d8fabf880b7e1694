// Package completion prints what makes a shell complete one of our programs'
// commands.
//
// What completes is the program itself, which a shell calls with the line that
// is being typed; this package knows shells and no command.
package completion

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Cmd is the command `completion`.
type Cmd struct {
	Shell string `arg:"" optional:"" enum:"bash,zsh,fish," default:"" help:"bash, zsh or fish; that of $SHELL, if none is said."`
	// Packages are made where the program is not yet what it will be.
	Program string `hidden:"" placeholder:"FILE" help:"Where the program will be, if it is not this one."`
}

// Help teaches where to put it.
func (Cmd) Help() string {
	return `Put what it prints where your shell begins:

  bash   eval "$(PROGRAM completion bash)"     in ~/.bashrc
  zsh    eval "$(PROGRAM completion zsh)"      in ~/.zshrc, after compinit
  fish   PROGRAM completion fish | source      in ~/.config/fish/config.fish`
}

var lines = map[string]string{
	"bash": "complete -o default -C '%[2]s' %[1]s\n",
	// A file of zsh's is this function's body, which completes the line that it
	// was loaded for as well.
	"zsh": `#compdef %[1]s
autoload -U +X bashcompinit && bashcompinit
complete -o default -C '%[2]s' %[1]s
[ "$funcstack[1]" != _%[1]s ] || _bash_complete -o default -C '%[2]s'
`,
	"fish": `function __complete_%[1]s
    set -lx COMP_LINE (commandline -cp)
    test -z (commandline -ct)
    and set COMP_LINE "$COMP_LINE "
    '%[2]s'
end
complete -f -c %[1]s -a "(__complete_%[1]s)"
`,
}

// Print writes what the shell reads for the program that this process runs.
func (c Cmd) Print(w io.Writer) error {
	if c.Shell == "" {
		c.Shell = filepath.Base(os.Getenv("SHELL"))
	}
	line, ok := lines[c.Shell]
	if !ok {
		return fmt.Errorf("%q is no shell that can be told: say bash, zsh or fish", c.Shell)
	}
	path := c.Program
	if path == "" {
		var err error
		if path, err = os.Executable(); err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
	}
	_, err := fmt.Fprintf(w, line, filepath.Base(path), path)
	return err
}
