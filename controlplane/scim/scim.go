// Package scim lets a directory keep people and groups here (SCIM 2.0, RFC
// 7643 and 7644, as far as Entra ID and Okta use it).
//
// What it is told of people it tells the store. It makes nobody an admin, and
// gives nobody anything to prove herself with.
package scim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/elimity-com/scim"
	scimerrors "github.com/elimity-com/scim/errors"
	"github.com/elimity-com/scim/optional"
	"github.com/elimity-com/scim/schema"
	"golang.org/x/time/rate"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// Config lets a directory in.
type Config struct {
	// TokenFile holds what the directory sends as "Authorization: Bearer", of
	// 32 characters or more.
	TokenFile string `yaml:"token_file"`
	// Domain stands behind the names of its users, as in ana@example.com; who
	// has another one, or none, is not taken up. Optional; none.
	Domain string `yaml:"domain,omitempty"`
}

// Check says what is wrong with the configuration.
func (c *Config) Check() error {
	if c == nil {
		return nil
	}
	var errs []error
	if !filepath.IsAbs(c.TokenFile) {
		errs = append(errs, errors.New("scim.token_file: write an absolute path"))
	}
	if strings.ContainsAny(c.Domain, "@ ") {
		errs = append(errs, errors.New("scim.domain: write it like example.com"))
	}
	return errors.Join(errs...)
}

// minToken is as long as what nobody guesses.
const minToken = 32

func (c *Config) token() ([32]byte, error) {
	b, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return [32]byte{}, fmt.Errorf("read the directory's token: %w", err)
	}
	t := strings.TrimSpace(string(b))
	if len(t) < minToken {
		return [32]byte{}, fmt.Errorf("%s: a token has %d characters at least: `openssl rand -hex 32` makes one", c.TokenFile, minToken)
	}
	return sha256.Sum256([]byte(t)), nil
}

// Store keeps what the directory says.
type Store interface {
	DirUser(ctx context.Context, id string) (roster.DirUser, error)
	DirUsers(ctx context.Context) ([]roster.DirUser, error)
	AddDirUser(ctx context.Context, u roster.DirUser, a roster.Act) (roster.DirUser, error)
	ChangeDirUser(ctx context.Context, id string, a roster.Act, f func(roster.DirUser) (roster.DirUser, error)) (roster.DirUser, error)
	DropDirUser(ctx context.Context, id string, a roster.Act) error
	Groups
}

// Groups keeps what the directory says of groups.
type Groups interface {
	DirGroup(ctx context.Context, id string) (roster.DirGroup, error)
	DirGroups(ctx context.Context) ([]roster.DirGroup, error)
	AddDirGroup(ctx context.Context, g roster.DirGroup, a roster.Act) (roster.DirGroup, error)
	ChangeDirGroup(ctx context.Context, id string, a roster.Act, f func(roster.DirGroup) (roster.DirGroup, error)) (roster.DirGroup, error)
	DropDirGroup(ctx context.Context, id string, a roster.Act) error
}

// Bounds of what the directory may do.
const (
	maxBody    = 1 << 20
	maxResults = 200
	callsEvery = 20 * time.Millisecond
	callsBurst = 200
	wrongEvery = time.Second
	wrongBurst = 10
)

// By is who did, in the record, what the directory did.
const By = "curfew-scim"

// Path is where the directory is answered.
const Path = "/scim/v2/"

// A Server answers the directory.
type Server struct {
	config  *Config
	origin  string
	store   Store
	clock   clock.Clock
	log     *slog.Logger
	handler http.Handler
	calls   *rate.Limiter
	wrong   *rate.Limiter // calls without the token, whoever makes them
}

// New lets a directory in at an origin's [Path].
func New(c *Config, origin string, s Store, k clock.Clock, log *slog.Logger) (*Server, error) {
	v := &Server{
		config: c, origin: origin, store: s, clock: k, log: log,
		calls: rate.NewLimiter(rate.Every(callsEvery), callsBurst), wrong: rate.NewLimiter(rate.Every(wrongEvery), wrongBurst),
	}
	if _, err := c.token(); err != nil {
		return nil, err
	}
	// Entra ID writes "False" where the standard has false.
	schema.SetAllowStringValues(true)
	h, err := scim.NewServer(&scim.ServerArgs{
		ServiceProviderConfig: &scim.ServiceProviderConfig{
			MaxResults: maxResults, SupportFiltering: true, SupportPatch: true,
			AuthenticationSchemes: []scim.AuthenticationScheme{{
				Type: scim.AuthenticationTypeOauthBearerToken, Name: "Bearer", Description: "A token that the operator made", Primary: true,
			}},
		},
		ResourceTypes: []scim.ResourceType{
			{
				ID: optional.NewString("User"), Name: "User", Endpoint: "/Users", Schema: schema.CoreUserSchema(), Handler: users{v},
				SchemaExtensions: []scim.SchemaExtension{{Schema: schema.ExtensionEnterpriseUser()}},
			},
			{ID: optional.NewString("Group"), Name: "Group", Endpoint: "/Groups", Schema: schema.CoreGroupSchema(), Handler: groups{v}},
		},
	}, scim.WithBaseURL(origin+strings.TrimSuffix(Path, "/")))
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	v.handler = http.StripPrefix(strings.TrimSuffix(Path, "/v2/"), h)
	return v, nil
}

// ServeHTTP lets through who has the token.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := s.clock.Now().Wall
	known, err := s.config.token()
	if err != nil {
		s.log.ErrorContext(r.Context(), "the directory is not let in", "cause", err)
		http.Error(w, "something went wrong on the server: its log says what", http.StatusInternalServerError)
		return
	}
	brought, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	sum := sha256.Sum256([]byte(brought))
	switch right := bearer && subtle.ConstantTimeCompare(sum[:], known[:]) == 1; {
	case right && s.calls.AllowN(now, 1):
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, "the body cannot be read, or is over 1 MiB", http.StatusBadRequest)
			return
		}
		r, err := parted(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(tidied(body)))
		s.handler.ServeHTTP(w, r)
	case !right && s.wrong.AllowN(now, 1):
		s.log.WarnContext(r.Context(), "somebody without the directory's token was sent away", "address", r.RemoteAddr)
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "this is for the directory alone", http.StatusUnauthorized)
	default:
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too many calls: wait a few seconds", http.StatusTooManyRequests)
	}
}

func (s *Server) act() roster.Act { return roster.Act{By: By, At: s.clock.Now().Wall} }

// said is an error as the directory reads it. What it is not to know goes to
// the log.
func (s *Server) said(ctx context.Context, id string, err error) error {
	switch v := (scimerrors.ScimError{}); {
	case err == nil || errors.As(err, &v):
		return err
	case errors.Is(err, roster.ErrMember):
		return invalid("a member is not known here: add the user first")
	case errors.Is(err, roster.ErrLastAdmin):
		return conflict("this is the last admin of the fleet: make another one first")
	case errors.Is(err, roster.ErrUnknown):
		return scimerrors.ScimErrorResourceNotFound(id)
	case errors.Is(err, roster.ErrExists):
		return scimerrors.ScimErrorUniqueness
	case errors.Is(err, roster.ErrDisabled):
		return conflict("this person was disabled, and her name is not given again")
	}
	if ctx.Err() == nil {
		s.log.ErrorContext(ctx, "what the directory asked for failed", "id", id, "cause", err)
	}
	return scimerrors.ScimErrorInternal
}

func conflict(text string) error {
	return scimerrors.ScimError{Status: http.StatusConflict, Detail: text}
}

func invalid(text string) error {
	return scimerrors.ScimError{Status: http.StatusBadRequest, ScimType: scimerrors.ScimTypeInvalidValue, Detail: text}
}

// page is the part of all that passes the filter which the directory asked
// for.
func page(ctx context.Context, all []scim.Resource, q scim.ListRequestParams) scim.Page {
	found := []scim.Resource{}
	for _, r := range referring(ctx, all) {
		attributes := map[string]any{"id": r.ID, "externalId": r.ExternalID.Value()}
		for k, v := range r.Attributes {
			attributes[k] = v
		}
		if q.FilterValidator == nil || q.FilterValidator.PassesFilter(attributes) == nil {
			found = append(found, r)
		}
	}
	from := min(max(q.StartIndex, 1)-1, len(found))
	to := min(from+min(max(q.Count, 0), maxResults), len(found))
	return scim.Page{TotalResults: len(found), Resources: found[from:to]}
}

// text checks a text of the directory's.
func text(what string, v any, most int) (string, error) {
	s, _ := v.(string)
	if err := grant.CheckText(what, s, most); err != nil {
		return "", invalid(err.Error())
	}
	return s, nil
}
