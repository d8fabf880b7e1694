package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// percentile sorts what was measured. Below 100 samples the 99th is the
// largest.
func percentile(all []time.Duration, percent int) time.Duration {
	slices.Sort(all)
	return all[(len(all)*percent+99)/100-1]
}

func median(all []time.Duration) time.Duration { return percentile(all, 50) }

// show prints what was measured, and returns the median.
func show(what string, all []time.Duration) time.Duration {
	at := func(percent int) time.Duration { return percentile(all, percent) }
	fmt.Printf("%-58s median %9s  p99 %9s  least %9s  n=%d\n", what, ms(at(50)), ms(at(99)), ms(all[0]), len(all))
	return at(50)
}

// over prints how many times as long one took as the other, by medians.
func over(what string, a, b time.Duration) {
	fmt.Printf("%-58s  ratio %9.3f\n", what, float64(a)/float64(b))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2fms", float64(d)/1e6) }

var stamp = regexp.MustCompile(`(?m)^(\w+) ([0-9]+)$`)

// stamps reads lines of a name and microseconds.
func stamps(out string) map[string][]time.Duration {
	all := map[string][]time.Duration{}
	for _, m := range stamp.FindAllStringSubmatch(out, -1) {
		if n, err := strconv.ParseInt(m[2], 10, 64); err == nil {
			all[m[1]] = append(all[m[1]], time.Duration(n)*time.Microsecond)
		}
	}
	return all
}
