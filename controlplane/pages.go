package controlplane

import (
	"fmt"
	"net"
	"net/http"

	"curfew.internal/controlplane/api"
	"curfew.internal/controlplane/identity"
	"curfew.internal/controlplane/scim"
	"curfew.internal/controlplane/web"
)

var (
	_ web.API  = (*api.Server)(nil)
	_ web.Desk = (*identity.Desk)(nil)
)

// webServer serves the pages: with their own certificate, or that of the
// people's API, or one from the fleet's CA.
func (s *Server) webServer() (*http.Server, error) {
	c := s.config.Web
	t, err := s.ca.Server(names(c.Origin)...)
	if err != nil {
		return nil, err
	}
	cert, key := c.TLSCert, c.TLSKey
	if cert == "" {
		cert, key = s.config.TLSCert, s.config.TLSKey
	}
	if err := present(t, cert, key); err != nil {
		return nil, fmt.Errorf("certificate of the pages: %w", err)
	}
	pages := &web.Server{
		Fleet: s.config.Fleet, Origin: c.Origin, API: s.api, Desk: s.desk, Clock: s.clock, Log: s.log, Share: newShares(s.clock).take,
	}
	if s.config.OIDC != nil {
		pages.Provider, pages.Code = s.config.OIDC.Name, s.codes.find()
	}
	mux := http.NewServeMux()
	mux.Handle("/", pages.Handler())
	if s.config.SCIM != nil {
		directory, err := scim.New(s.config.SCIM, c.Origin, s.store, s.clock, s.log)
		if err != nil {
			return nil, err
		}
		mux.Handle(scim.Path, directory)
	}
	return &http.Server{Handler: s.bounded(api.Addressed(mux)), TLSConfig: t, ReadHeaderTimeout: headWithin}, nil
}

// Pages is where the pages are served; nil if there are none.
func (s *Server) Pages() net.Addr {
	if s.web == nil {
		return nil
	}
	return s.web.Addr()
}
