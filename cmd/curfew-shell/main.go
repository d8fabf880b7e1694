// Curfew-shell is the login shell of people under a grant.
package main

import (
	"context"
	"fmt"
	"os"

	"curfew.internal/agent/record/shell"
	"curfew.internal/clock"
)

const socket = "/run/curfew/record.sock"

func main() {
	l := shell.Login{Args: os.Args, Env: os.Environ(), Socket: socket, Clock: clock.System{}}
	code, err := l.Run(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "curfew: "+err.Error())
	}
	os.Exit(code)
}
