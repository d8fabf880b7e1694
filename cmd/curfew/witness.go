package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"curfew.internal/ledger"
	"curfew.internal/witness"
)

type witnessCmd struct {
	Init witnessInitCmd `cmd:"" help:"Make the key of a witness of your own, and print its public half."`
	Run  witnessRunCmd  `cmd:"" help:"Cosign what logs send, as long as each goes on from what it was."`
}

type witnessInitCmd struct {
	Name string `arg:"" help:"The witness's name, for all time; like witness.example/curfew."`
	Dir  string `required:"" type:"path" placeholder:"DIR" help:"The witness's folder: its key, and what it has cosigned."`
}

// Run makes the key.
func (c witnessInitCmd) Run(_ context.Context, p *program) error {
	key, err := witness.Init(c.Dir, c.Name)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.out, key)
	return err
}

type witnessRunCmd struct {
	Dir     string   `required:"" type:"path" placeholder:"DIR" help:"What \"curfew witness init\" made."`
	Log     []string `required:"" sep:"none" placeholder:"KEY" help:"The key of a log to watch over (curfew/FLEET+…), or a file that holds it. Once for each."`
	Listen  string   `default:"127.0.0.1:7450" placeholder:"ADDRESS" help:"Where logs reach it; without a certificate, on loopback only."`
	TLSCert string   `name:"tls-cert" type:"existingfile" and:"tls" placeholder:"FILE" help:"A certificate that the control plane trusts, and its chain."`
	TLSKey  string   `name:"tls-key" type:"existingfile" and:"tls" placeholder:"FILE" help:"The certificate's key."`
}

// Bounds of the witness's server.
const (
	witnessWithin = 30 * time.Second
	witnessStops  = 10 * time.Second
)

var errWitnessTLS = errors.New("logs reach this witness from elsewhere: give it --tls-cert and --tls-key, or an address on loopback behind a proxy that has them")

// Run serves until it is interrupted.
func (c witnessRunCmd) Run(ctx context.Context, p *program) (err error) {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("--listen: write ADDRESS:PORT: %w", err)
	}
	if ip := net.ParseIP(host); c.TLSCert == "" && (ip == nil || !ip.IsLoopback()) {
		return errWitnessTLS
	}
	var logs []ledger.Key
	for _, text := range c.Log {
		if text, err = keyText(text); err != nil {
			return err
		}
		k, err := ledger.ParseKey(text)
		if err != nil {
			return err
		}
		logs = append(logs, k)
	}
	w, err := witness.Open(c.Dir, logs, p.clock)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	log := slog.New(slog.NewTextHandler(p.err, nil))
	log.InfoContext(ctx, "witness is up", "address", l.Addr().String(), "key", w.Key())
	return c.serve(ctx, &http.Server{Handler: w.Handler(log), ReadTimeout: witnessWithin, WriteTimeout: witnessWithin, MaxHeaderBytes: 1 << 14}, l)
}

func (c witnessRunCmd) serve(ctx context.Context, h *http.Server, l net.Listener) error {
	done := make(chan error, 1)
	go func() {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), witnessStops)
		defer cancel()
		done <- errors.Join(h.Shutdown(stop), h.Close())
	}()
	var err error
	if c.TLSCert != "" {
		err = h.ServeTLS(l, c.TLSCert, c.TLSKey)
	} else {
		err = h.Serve(l)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return <-done
}

// keyText is a key, or what the file of that name holds: a key has a +.
func keyText(text string) (string, error) {
	if strings.Contains(text, "+") {
		return text, nil
	}
	b, err := os.ReadFile(text) //nolint:gosec // the person names the file
	return strings.TrimSpace(string(b)), err
}
