package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"curfew.internal/agent/keep"
	"curfew.internal/clock"
	"curfew.internal/ledger"
)

// BenchmarkOutbox compares what a host tells, kept on its disk under seals and
// without any, with the bare disk: the same bytes put at the end of a file, and
// one sync for each batch.
func BenchmarkOutbox(b *testing.B) {
	plain, sealed := openKeep(b, keep.Config{}), openKeep(b, keep.Config{Key: storeKey})
	bare, err := os.OpenFile(filepath.Join(b.TempDir(), "bare"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = bare.Close() }() // it was synced
	var took [3]time.Duration
	for n := range batches {
		raw := events(n)
		entries, line := make([]ledger.Entry, batch), []byte{}
		for i := range raw {
			if entries[i], err = ledger.ParseEntry(raw[i]); err != nil {
				b.Fatal(err)
			}
			line = append(line, raw[i]...)
		}
		ways := [3]func() error{
			func() error {
				if _, err := bare.Write(line); err != nil {
					return err
				}
				return bare.Sync()
			},
			func() error { return plain.Append(entries...) },
			func() error { return sealed.Append(entries...) },
		}
		for k := range ways {
			i := (n + k) % len(ways)
			begun := time.Now()
			if err := ways[i](); err != nil {
				b.Fatal(err)
			}
			took[i] += time.Since(begun)
		}
	}
	rate := func(i int) float64 { return batches * batch / took[i].Seconds() }
	fmt.Printf("the host's disk: events bare %6.0f/s  without seals %6.0f/s, ratio %.2f  under seals %6.0f/s, ratio %.2f  n=%d each, in batches of %d\n",
		rate(0), rate(1), rate(1)/rate(0), rate(2), rate(2)/rate(0), batches*batch, batch)
	with, without := kept(b, sealed), kept(b, plain)
	fmt.Printf("of an event, seals are %.1fµs of %.1fµs and %.1f bytes of %.0f\n", (took[2]-took[1]).Seconds()*1e6/(batches*batch),
		took[2].Seconds()*1e6/(batches*batch), with-without, with)
}

// openKeep opens an outbox that writes until the benchmark's end.
func openKeep(b *testing.B, c keep.Config) *keep.Keep {
	b.Helper()
	c.Dir, c.Fleet, c.Host, c.Boot, c.Clock = b.TempDir(), "lab", hostOf(0), "boot", clock.System{}
	k, err := keep.Open(c)
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			b.Error(err)
		}
		if err := k.Close(); err != nil {
			b.Error(err)
		}
	})
	return k
}

// kept is how many bytes lie in the outbox for each entry that is no seal.
func kept(b *testing.B, k *keep.Keep) float64 {
	b.Helper()
	size, count := 0, 0
	for after := uint64(0); ; {
		first, entries, err := k.Outbox().Next(after, batch)
		if err != nil {
			b.Fatal(err)
		}
		if len(entries) == 0 {
			return float64(size) / float64(count)
		}
		after = first + uint64(len(entries)) - 1
		for _, raw := range entries {
			e, err := ledger.ParseEntry(raw)
			if err != nil {
				b.Fatal(err)
			}
			size += len(raw)
			if e.Kind != ledger.Sealed {
				count++
			}
		}
	}
}
