package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"time"
)

const (
	// paced is how many programs are started at fixed times, and pace what lies
	// between two of them: some half of what one processor can start.
	paced = 400
	pace  = 2500 * time.Microsecond
)

// keepPace starts programs when it is time, whether or not those before have
// ended, and prints how long after its time each had: who waits for one that is
// slow starts fewer, and counts none of what the others would have waited.
func keepPace(ctx context.Context) error {
	took, failed := make([]time.Duration, paced), make([]error, paced)
	begun := time.Now()
	var g sync.WaitGroup
	for i := range paced {
		due := begun.Add(time.Duration(i) * pace)
		time.Sleep(time.Until(due))
		g.Go(func() {
			failed[i] = exec.CommandContext(ctx, "/bin/true").Run()
			took[i] = time.Since(due)
		})
	}
	g.Wait()
	for _, d := range took {
		fmt.Println("paced", d.Microseconds())
	}
	return errors.Join(failed...)
}
