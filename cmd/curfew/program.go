package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"curfew.internal/clock"
	"curfew.internal/wire/api/apiconnect"
	"curfew.internal/wire/signature"
)

// program is what every command runs with.
type program struct {
	globals
	clock clock.Clock
	out   io.Writer
	err   io.Writer
	in    *os.File
}

var errSignIn = exit{exitSignIn, errors.New("you are not signed in: run `curfew login`, or `curfew login CODE` on a new computer")}

// client returns the API as the signed-in person.
func (p *program) client() (apiconnect.CurfewClient, error) {
	s, err := p.loadSession()
	if err != nil {
		return nil, err
	}
	h, err := p.signing(s)
	if err != nil {
		return nil, err
	}
	return apiconnect.NewCurfewClient(h, s.URL), nil
}

func (p *program) signing(s session) (*http.Client, error) {
	key, err := p.deviceKey()
	if err != nil {
		return nil, err
	}
	base, err := s.transport()
	if err != nil {
		return nil, err
	}
	now := func() time.Time { return p.clock.Now().Wall }
	return &http.Client{Transport: signature.Transport{Base: base, Session: s.ID, Key: key, Now: now}}, nil
}

// open returns the API for the calls that need no session.
func (p *program) open(s session) (apiconnect.CurfewClient, error) {
	base, err := s.transport()
	if err != nil {
		return nil, err
	}
	return apiconnect.NewCurfewClient(&http.Client{Transport: base}, s.URL), nil
}

// transport trusts the fleet's CA alone, known by its SHA-256.
func (s session) transport() (http.RoundTripper, error) {
	if len(s.CA) != sha256.Size {
		return nil, errSignIn
	}
	return &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			InsecureSkipVerify: true, //nolint:gosec // the chain is verified below, against the pinned CA
			VerifyConnection:   s.verify,
		},
	}, nil
}

func (s session) verify(c tls.ConnectionState) error {
	for _, ca := range c.PeerCertificates {
		if sum := sha256.Sum256(ca.Raw); string(sum[:]) != string(s.CA) || !ca.IsCA {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		_, err := c.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: c.ServerName})
		return err
	}
	return errors.New("the server is not the one you enrolled with: its certificate comes from another CA")
}

// codeName is the variable that may hold a code.
const codeName = "CURFEW_CODE"

// factor asks for a code of the second factor.
func (p *program) factor() (string, error) {
	if c := os.Getenv(codeName); c != "" {
		return c, nil
	}
	fd := int(p.in.Fd())
	if term.IsTerminal(fd) {
		if _, err := fmt.Fprint(p.err, "Code of your second factor: "); err != nil {
			return "", err
		}
		b, err := term.ReadPassword(fd)
		_, _ = fmt.Fprintln(p.err)
		return strings.TrimSpace(string(b)), err
	}
	return p.line("", "the code of your second factor is needed")
}

// maxLine is more than the longest code of ours.
const maxLine = 8 << 10

// line asks for one line of text at the terminal, or reads it from standard
// input. It says what is missing if there is none.
func (p *program) line(question, missing string) (string, error) {
	if term.IsTerminal(int(p.in.Fd())) {
		if _, err := fmt.Fprint(p.err, question); err != nil {
			return "", err
		}
	}
	line, err := bufio.NewReader(io.LimitReader(p.in, maxLine)).ReadString('\n')
	if line = strings.TrimSpace(line); line == "" {
		return "", errors.Join(errors.New(missing+": type it at the terminal, or give it on standard input"), ignoreEOF(err))
	}
	return line, nil
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// print shows m as JSON, or by the text function.
func (p *program) print(m proto.Message, text func() error) error {
	if p.Output != "json" {
		return text()
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.out, string(b))
	return err
}

// message is the text of an error for the person at the terminal.
func message(err error) string {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return clean(err.Error())
	}
	if strings.HasPrefix(ce.Message(), "429") {
		return "too many sign-ins from this address: wait a few seconds and try again"
	}
	if ce.Code() == connect.CodeUnavailable && ce.Message() != "" && !connect.IsWireError(err) {
		return "the control plane does not answer (" + clean(ce.Message()) + "): what you hold on hosts goes on until its end"
	}
	return clean(ce.Message())
}

func codeOf(err error) int {
	if errors.Is(err, context.Canceled) {
		return exitError
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated:
		return exitSignIn
	case connect.CodePermissionDenied, connect.CodeInvalidArgument, connect.CodeFailedPrecondition, connect.CodeNotFound,
		connect.CodeAlreadyExists, connect.CodeResourceExhausted, connect.CodeOutOfRange:
		return exitRefused
	case connect.CodeCanceled, connect.CodeUnknown, connect.CodeDeadlineExceeded, connect.CodeAborted,
		connect.CodeUnimplemented, connect.CodeInternal, connect.CodeUnavailable, connect.CodeDataLoss:
		return exitError
	}
	return exitError
}
