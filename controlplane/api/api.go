// Package api answers what people and their programs ask of the control
// plane.
//
// It puts the rooms of the control plane together for each call and turns
// their answers into messages; it keeps nothing, and no call but those that
// sign somebody in passes without a session's signature.
package api

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/mod/sumdb/tlog"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
	"curfew.internal/ledger"
	"curfew.internal/wire/api/apiconnect"
	"curfew.internal/wire/signature"
)

// Desk knows who is calling.
type Desk interface {
	Enroll(ctx context.Context, secret string, device ed25519.PublicKey) (person, uri string, err error)
	ConfirmEnroll(ctx context.Context, c roster.Confirmation) (roster.Session, error)
	Login(ctx context.Context, l roster.Login) (roster.Session, error)
	Session(ctx context.Context, id string) (roster.Session, roster.Person, error)
	SpendCode(ctx context.Context, person, code string) error
	// SpendCodeAt is for a code that was typed on a host: one that is wrong
	// keeps nobody from her own devices.
	SpendCodeAt(ctx context.Context, host, person, code string) error
	ProvePasskey(ctx context.Context, person string, answer, about []byte) error
	// SignPasskey returns what the person's own passkey signed, and its word.
	SignPasskey(ctx context.Context, person string, answer []byte) (statement, word []byte, err error)
	// Publics are the public halves of a person's passkeys.
	Publics(ctx context.Context, person string) ([]grant.Passkey, error)
	Lines
	Browsers
}

// Lines signs command lines in by way of a browser and the provider.
type Lines interface {
	BeginLine(l roster.Line) (at, shown string, err error)
	FinishLine(ctx context.Context, l roster.LineLogin) (roster.Session, error)
}

// Browsers knows who is calling from a browser.
type Browsers interface {
	AskPasskey(ctx context.Context, person string, about []byte) (roster.Ceremony, error)
	AskSignature(ctx context.Context, person string, statement, digest []byte) (roster.Ceremony, error)
	Browser(ctx context.Context, secret string) (roster.Session, roster.Person, error)
	AskAnother(ctx context.Context, person string) (roster.Ceremony, error)
	AddPasskey(ctx context.Context, person string, answer []byte, name string) error
	Link(s roster.Session) (roster.Link, error)
}

// Rules is the policy in force.
type Rules interface {
	// Judge says what a request needs, or refuses it and says what to change.
	Judge(q roster.Question, hosts []roster.Host, at time.Time) (roster.Verdict, error)
	// MayApprove reports whether the person is among the approvers of the
	// role, for that requester.
	MayApprove(person, requester, role string) bool
	// Escalates is how long after it was asked, at the soonest, others may
	// approve a request for the role than at first; 0: never.
	Escalates(role string) time.Duration
	// StandIns are those of the delegations by which somebody may approve in
	// another's place what the person asks for. All stand now.
	StandIns(role, requester string, all []roster.Delegation) []roster.Delegation
	// Lends says for which roles a delegation counts, and why not for others.
	Lends(d roster.Delegation) (roles, not []string)
	// Offers lists what the person may ask for.
	Offers(person string, hosts []roster.Host, at time.Time) []roster.Offer
	// Ahead lists what she may ask for from a later day on.
	Ahead(person string, hosts []roster.Host, at time.Time) []roster.Offer
	State() roster.PolicyState
}

// Authority signs SSH certificates, and knows how long its grant key counts.
type Authority interface {
	SignUser(userKey string, g grant.Grant, now time.Time) (string, error)
	GoodUntil() time.Time
	// Root is the public half of the key that vouches for the fleet.
	Root() ed25519.PublicKey
}

// Codes makes the codes that people paste.
type Codes interface {
	Invite(ctx context.Context, person, by string) (roster.Code, error)
	// InviteBeside is for a device beside those that the person has.
	InviteBeside(ctx context.Context, person string) (roster.Code, error)
	Join(ctx context.Context, host string, labels map[string]string, by string) (code string, expires time.Time, err error)
}

// Store keeps people, hosts, requests and the record.
type Store interface {
	People
	Requests
	Delegations
	Record
	Proof
	Rosters
	Alerts
}

// Alerts keeps how far the record was looked at for what somebody has to look at.
type Alerts interface {
	// Alone runs f, unless another server runs what has the same name.
	Alone(ctx context.Context, name string, f func(context.Context) error) (ran bool, err error)
	// Forwarded is the last event that was looked at; found is false if none ever was.
	Forwarded(ctx context.Context, cursor string) (upTo uint64, found bool, err error)
	KeepForwarded(ctx context.Context, cursor string, upTo uint64) error
}

// People keeps people, their sessions, and hosts.
type People interface {
	Person(ctx context.Context, name string) (roster.Person, error)
	Knows(ctx context.Context, name string) (bool, error)
	People(ctx context.Context) ([]roster.Person, error)
	AddPerson(ctx context.Context, p roster.Person, a roster.Act) (roster.Person, error)
	SetEmail(ctx context.Context, name, email string, a roster.Act) (roster.Person, error)
	DisablePerson(ctx context.Context, name string, a roster.Act) (roster.Person, error)
	EndSession(ctx context.Context, v roster.Session, step string, at time.Time) error
	TurnAway(ctx context.Context, a roster.Act, why string) error
	Sessions(ctx context.Context, person string, at time.Time) ([]roster.Session, error)
	Factors(ctx context.Context, person string) (roster.Factors, error)
	RemovePasskey(ctx context.Context, id []byte, a roster.Act) error
	Proofs
	UseNonce(ctx context.Context, session, nonce string, until, at time.Time) error
	Host(ctx context.Context, name string) (roster.Host, error)
	Hosts(ctx context.Context) ([]roster.Host, error)
	DecommissionHost(ctx context.Context, name string, a roster.Act) (roster.Host, error)
	State(ctx context.Context, host string) (roster.State, error)
}

// Proofs keeps what people proved themselves with, on each session.
type Proofs interface {
	Proved(ctx context.Context, session string, at time.Time) error
	// ProvedFor is for a call on whose proof a later request may stand.
	ProvedFor(ctx context.Context, p roster.Proof) error
	// LastProof is the last such one on the session, if a request that comes
	// from that network could stand on it.
	LastProof(ctx context.Context, session, network string) (roster.Proof, error)
}

// Requests keeps requests and their grants.
type Requests interface {
	Request(ctx context.Context, id string) (roster.Request, error)
	RequestOf(ctx context.Context, person, key string) (roster.Request, error)
	Requests(ctx context.Context, all bool, limit int) ([]roster.Request, error)
	LiveOn(ctx context.Context, person, host string, at time.Time) ([]roster.Request, error)
	Ask(ctx context.Context, r roster.Request, at time.Time, c roster.Change) (roster.Request, error)
	Change(ctx context.Context, id string, at time.Time, f func(roster.Request) (roster.Change, error)) (roster.Request, error)
	Due(ctx context.Context, at time.Time) ([]string, error)
	// Risk is what is out of the ordinary for the person, if she asks now.
	Risk(ctx context.Context, person, role, source string, at time.Time) (roster.Risk, error)
	// Asked returns the requests that wait to be decided.
	Asked(ctx context.Context) ([]roster.Request, error)
	// Escalate keeps the step that f makes of a request that waits, unless one
	// was kept since the time that f says.
	Escalate(ctx context.Context, id string, f func(roster.Request) (since time.Time, step *roster.Decision)) error
	Changed() <-chan struct{}
}

// Delegations keeps who may approve in whose place.
type Delegations interface {
	Delegations(ctx context.Context, at time.Time) ([]roster.Delegation, error)
	AddDelegation(ctx context.Context, d roster.Delegation, at time.Time) error
	EndDelegation(ctx context.Context, id string, a roster.Act) error
}

// Record keeps what happened.
type Record interface {
	Events(ctx context.Context, q roster.Search) ([]roster.Event, error)
	LastEvent(ctx context.Context) (uint64, error)
	Tell(ctx context.Context, a roster.Act, format string, args ...any) error
	Refuse(ctx context.Context, a roster.Act, format string, args ...any) error
	Decisions(ctx context.Context, request string) ([]roster.Decision, error)
	SentTo(ctx context.Context, request string) ([]roster.Decision, error)
	PassedBy(ctx context.Context, request string) ([]string, error)
	Unconfirmed(ctx context.Context, from, before time.Time) ([]roster.Unconfirmed, error)
}

// Rosters keeps the versions of the roster of people's keys.
type Rosters interface {
	LastRoster(ctx context.Context) ([]byte, error)
	AddRoster(ctx context.Context, r grant.Roster, envelope []byte, a roster.Act) error
}

// Proof shows that the record is what it was.
type Proof interface {
	Selected(ctx context.Context, q roster.Selection, size uint64) ([]uint64, error)
	Deleted(ctx context.Context, size uint64) ([]uint64, error)
	Growth(ctx context.Context, from, to uint64) (tlog.TreeProof, error)
	Proven(ctx context.Context, numbers []uint64, size uint64) ([]ledger.Record, error)
	// Tapes returns, of entries, those in which hosts signed what a segment of a
	// recording shows, and of which of these that was deleted.
	Tapes(ctx context.Context, numbers []uint64) (said map[uint64]ledger.Segment, erased []uint64, err error)
}

// Ledger is the log over the record, and its key.
type Ledger interface {
	// Checkpoint is the log as it stands now, and the note that says so.
	Checkpoint(ctx context.Context) (ledger.Checkpoint, []byte, error)
	// Cosigned is the same, with the lines of those witnesses that answer now.
	Cosigned(ctx context.Context) (ledger.Checkpoint, []byte, error)
	Witnesses(ctx context.Context) ([]roster.Witness, error)
	Manifest(m ledger.Manifest) []byte
	Key() ledger.Key
}

// A Server answers calls.
type Server struct {
	Fleet     string
	Pages     string // origin of the pages; empty: there are none
	Store     Store
	Desk      Desk
	Rules     Rules
	Authority func() Authority // the present one
	Codes     Codes
	Ledger    Ledger
	Terminals Terminals
	Connected func(host string) bool
	Clock     clock.Clock
	Log       *slog.Logger
	Stop      <-chan struct{} // closed when streams have to end

	watchers watchers
	seen     forward // of the clock

	away      turnedAway
	escalated escalated             // of [Server.Escalate] alone
	alerted   [len(alerting)]uint64 // the events up to which [Server.Alert] has found nothing more; its alone
	rosters   time.Time             // when it looked at the roster's end; its alone

	keysMu sync.Mutex // guards what follows
	keys   *grant.Roster
	keysOf []byte // the envelope that it was read from
}

var _ apiconnect.CurfewHandler = (*Server)(nil)

// open are the calls that need no session, because they make one.
var open = map[string]bool{
	apiconnect.CurfewEnrollProcedure:        true,
	apiconnect.CurfewConfirmEnrollProcedure: true,
	apiconnect.CurfewLoginProcedure:         true,
	apiconnect.CurfewBeginSignInProcedure:   true,
	apiconnect.CurfewFinishSignInProcedure:  true,
}

// Open reports whether the path's call needs no session.
func Open(path string) bool { return open[path] }

// Handler returns the path under which the API answers, and its handler.
func (s *Server) Handler() (string, http.Handler) {
	path, h := apiconnect.NewCurfewHandler(s,
		connect.WithReadMaxBytes(signature.MaxBody),
		connect.WithInterceptors(refusals{s}),
		connect.WithRecover(func(ctx context.Context, spec connect.Spec, _ http.Header, v any) error {
			s.Log.ErrorContext(ctx, "call panicked", "call", spec.Procedure, "panic", v)
			return connect.NewError(connect.CodeInternal, errOurs)
		}),
	)
	writer := connect.NewErrorWriter()
	v := signature.Verifier{
		Sessions: sessions{s},
		Now:      s.now,
		Open:     Open,
		Refuse: func(w http.ResponseWriter, r *http.Request, err error) {
			_ = writer.Write(w, r, s.refusal(r.Context(), r.URL.Path, err)) // the caller hung up
		},
	}
	return path, Addressed(v.Wrap(h))
}

func (s *Server) now() time.Time {
	r := s.Clock.Now()
	s.seen.see(r)
	return r.Wall
}

// caller is who made a call.
type caller struct {
	roster.Person
	session roster.Session
}

type callerKey struct{}

// who returns the caller, whom the signature's check put into the context.
func who(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

type sourceKey struct{}

// Addressed has the calls that are made under it know the address that they
// come from: that of the other end of the connection, which may be a proxy.
func Addressed(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			r = r.WithContext(context.WithValue(r.Context(), sourceKey{}, at.Addr().Unmap().WithZone("").String()))
		}
		h.ServeHTTP(w, r)
	})
}

// source is the address that the call comes from; empty if it is not known.
func source(ctx context.Context) string {
	s, _ := ctx.Value(sourceKey{}).(string)
	return s
}

// act is the caller doing something to the fleet now.
func (s *Server) act(ctx context.Context) roster.Act {
	return roster.Act{By: who(ctx).Name, At: s.now()}
}

// sessions is the signature check's view of the server.
type sessions struct{ *Server }

func (s sessions) Session(ctx context.Context, id string) (context.Context, ed25519.PublicKey, error) {
	v, p, err := s.Desk.Session(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	return context.WithValue(ctx, callerKey{}, caller{p, v}), v.Device, nil
}

func (s sessions) UseNonce(ctx context.Context, session, nonce string, until time.Time) error {
	err := s.Store.UseNonce(ctx, session, nonce, until, s.now())
	if is(err, roster.ErrUsed) {
		return signature.ErrReplayed
	}
	return err
}
