package controlplane

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"

	"curfew.internal/controlplane/api"
	"curfew.internal/controlplane/identity"
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
	own := s.own
	if c.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("certificate of the pages: %w", err)
		}
		own = &pair
	}
	if own != nil {
		t.GetCertificate = nil
		t.Certificates = append(t.Certificates, *own)
	}
	pages := &web.Server{
		Fleet: s.config.Fleet, Origin: c.Origin, API: s.api, Desk: s.desk, Clock: s.clock, Log: s.log, Share: newShares(s.clock).take,
	}
	return &http.Server{Handler: s.bounded(pages.Handler()), TLSConfig: t, ReadHeaderTimeout: headWithin}, nil
}

// Pages is where the pages are served; nil if there are none.
func (s *Server) Pages() net.Addr {
	if s.web == nil {
		return nil
	}
	return s.web.Addr()
}
