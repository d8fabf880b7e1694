package fleet

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"time"
	"unicode"

	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/wire/uplink"
)

// Enrol turns a token into an identity.
func (s *Server) Enrol(ctx context.Context, r *uplink.EnrolRequest) (*uplink.EnrolReply, error) {
	now := s.Clock.Now().Wall
	from := address(ctx)
	if !s.enrolments.allow(from, now) {
		return nil, status.Error(codes.ResourceExhausted, "too many enrolments from this address: wait a minute")
	}
	if err := grant.CheckHost(r.GetName()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	key, err := readCSR(r.GetCsr())
	if err == nil && len(r.GetReceiptKey()) != ed25519.PublicKeySize {
		err = errors.New("receipt key is no Ed25519 public key")
	}
	if err == nil {
		err = checkLabels(r.GetLabels())
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	h := roster.Host{
		Name: r.GetName(), Labels: r.GetLabels(), ReceiptKey: r.GetReceiptKey(), Identity: rand.Text(),
		Addresses: cleanAddresses(r.GetAddresses()), SSHHostKeys: cleanKeys(r.GetSshHostKeys()),
	}
	h, err = s.Store.UseJoinToken(ctx, sha256.Sum256([]byte(r.GetSecret())), h, now)
	if err != nil {
		s.Log.WarnContext(ctx, "enrolment refused", "host", r.GetName(), "address", from, "err", err)
		return nil, refusal(err)
	}
	der, err := s.CA.hostCertificate(key, h.Name, h.Identity)
	if err != nil {
		s.Log.ErrorContext(ctx, "host certificate", "host", h.Name, "err", err)
		return nil, status.Error(codes.Internal, "the control plane could not make a certificate")
	}
	s.Log.InfoContext(ctx, "host enrolled", "host", h.Name, "address", from)
	s.Drop(h.Name) // of its former self
	return &uplink.EnrolReply{
		Fleet: s.CA.Fleet, Certificate: der, Ca: s.CA.Certificate.Raw, SshCa: s.SSHCA(), Labels: h.Labels,
	}, nil
}

// refusal says why no host was enrolled. Who holds no token learns nothing
// else: a wrong secret and a used one look the same.
func refusal(err error) error {
	switch {
	case errors.Is(err, roster.ErrUnknown), errors.Is(err, roster.ErrUsed):
		return status.Error(codes.PermissionDenied, "this join code does not count: it was used, has expired, or is for a host of another name; ask for a new one")
	case errors.Is(err, roster.ErrLabels):
		return status.Error(codes.InvalidArgument, err.Error()+": leave --label out, or ask for a code that was made with them (`curfew hosts token --label`)")
	case errors.Is(err, roster.ErrExists):
		return status.Error(codes.AlreadyExists, err.Error())
	}
	return status.Error(codes.Unavailable, "the control plane cannot enrol hosts now")
}

// Renew gives a host a new certificate.
func (s *Server) Renew(ctx context.Context, r *uplink.RenewRequest) (*uplink.RenewReply, error) {
	h, _, err := s.who(ctx)
	if err == nil && h.Decommissioned {
		err = decommissioned(h.Name)
	}
	if err != nil {
		return nil, err
	}
	key, err := readCSR(r.GetCsr())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	der, err := s.CA.hostCertificate(key, h.Name, h.Identity)
	if err != nil {
		s.Log.ErrorContext(ctx, "host certificate", "host", h.Name, "err", err)
		return nil, status.Error(codes.Internal, "the control plane could not make a certificate")
	}
	return &uplink.RenewReply{Certificate: der}, nil
}

// who says which host calls, by its certificate, if that host is in the fleet
// and this is its present enrolment.
func (s *Server) who(ctx context.Context) (roster.Host, *credentials.TLSInfo, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return roster.Host{}, nil, status.Error(codes.Unauthenticated, "no connection")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return roster.Host{}, nil, status.Error(codes.Unauthenticated, "a host certificate is needed")
	}
	name, identity, err := s.CA.named(info.State.VerifiedChains[0][0])
	if err != nil {
		return roster.Host{}, nil, status.Error(codes.Unauthenticated, err.Error())
	}
	h, err := s.standing(ctx, name, identity)
	return h, &info, err
}

func decommissioned(name string) error {
	return status.Errorf(codes.PermissionDenied, "host %s was decommissioned: enrol it with a new join code", name)
}

// lastWord is how long a host that has left may still hand in what it has to
// report: its receipts come after the word that it is done.
const lastWord = 15 * time.Second

// standing returns the host if it is in the fleet under that identity, or
// leaves it and has not said yet that nothing stands on it any more.
func (s *Server) standing(ctx context.Context, name, identity string) (roster.Host, error) {
	h, err := s.Store.Host(ctx, name)
	switch {
	case errors.Is(err, roster.ErrUnknown):
		return h, status.Errorf(codes.PermissionDenied, "host %s is not in the fleet: enrol it with a new join code", name)
	case err != nil:
		return h, status.Error(codes.Unavailable, "the control plane cannot look up its hosts now")
	case h.Decommissioned && h.Leaving == 0 && !s.Clock.Now().Wall.Before(h.LeftAt.Add(lastWord)):
		return h, decommissioned(name)
	case h.Identity != identity:
		return h, status.Errorf(codes.PermissionDenied, "host %s was enrolled again since: this is the identity of its former self", name)
	}
	return h, nil
}

func address(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}

// Bounds of what a host says of itself.
const (
	maxText   = 500
	maxLabels = 32
	maxList   = 16
)

var (
	labelForm = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,61}[a-zA-Z0-9])?$`)
	nameForm  = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?$`)
)

func checkLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return fmt.Errorf("%d labels: at most %d", len(labels), maxLabels)
	}
	for k, v := range labels {
		if !labelForm.MatchString(k) || !labelForm.MatchString(v) {
			return fmt.Errorf("label %.64q=%.64q: write letters, digits and . _ / - inside", k, v)
		}
	}
	return nil
}

// cleanAddresses leaves out what is no address: it ends up in people's ssh.
func cleanAddresses(all []string) []string {
	var good []string
	for _, a := range all[:min(len(all), maxList)] {
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			host = a
		}
		_, ipErr := netip.ParseAddr(host)
		if len(a) <= 260 && printable(a) == a && (ipErr == nil && !strings.Contains(host, "%") || nameForm.MatchString(host)) {
			good = append(good, a)
		}
	}
	return good
}

// cleanKeys writes SSH host keys anew, and leaves out what is none: they end
// up in people's known_hosts, one a line.
func cleanKeys(all []string) []string {
	var good []string
	for _, a := range all[:min(len(all), maxList)] {
		if k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(a)); err == nil {
			good = append(good, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))))
		}
	}
	return good
}

// cleanLines makes lines of a host printable.
func cleanLines(all []string) []string {
	var good []string
	for _, a := range all[:min(len(all), maxList)] {
		good = append(good, printable(a))
	}
	return good
}

// access is one of the words that a host has for it, or none.
func access(said string) string {
	if said == "observe" || said == "enforce" {
		return said
	}
	return ""
}

// Bounds of what a host's doctor found, as far as it is kept; the worst come
// first.
const (
	maxFindings      = 64
	maxFindingsBytes = 32 << 10
)

// cleanFindings makes what a host's doctor says printable. What has a severity
// that is not known here is a warning.
func cleanFindings(all []*uplink.Finding) []roster.Finding {
	var good []roster.Finding
	size := 0
	for _, f := range all[:min(len(all), maxFindings)] {
		severity := f.GetSeverity()
		if severity != "note" && severity != "broken" {
			severity = "warning"
		}
		one := roster.Finding{Check: printable(f.GetCheck()), Severity: severity, Says: printable(f.GetSays()), Mend: printable(f.GetMend())}
		if size += len(one.Check) + len(one.Says) + len(one.Mend); size > maxFindingsBytes {
			break
		}
		good = append(good, one)
	}
	return good
}

// printable is a host's text, bounded, for one line.
func printable(s string) string {
	n := 0
	return strings.Map(func(r rune) rune {
		if n++; n > maxText {
			return -1
		}
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
