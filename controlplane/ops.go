package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// opsServer has the operator's pages. They hold no names and no secrets.
func (s *Server) opsServer(ctx context.Context) *http.Server {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &figures{s, ctx})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Timeout: bodyWithin}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := s.ready(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	return &http.Server{Handler: mux, WriteTimeout: time.Minute, ReadTimeout: bodyWithin, ReadHeaderTimeout: headWithin}
}

func (s *Server) ready(ctx context.Context) error {
	var errs []error
	if err := s.store.Ping(ctx); err != nil {
		errs = append(errs, errors.New("the database does not answer"))
	}
	if s.rules.State().Version == "" {
		errs = append(errs, errors.New("no policy is in force: `curfew-server policy check` says what is wrong with the folder"))
	}
	if !s.clock.Now().Wall.Before(s.keys.Load().GoodUntil()) {
		errs = append(errs, errors.New("the grant key has run out: `curfew-server rotate-key`"))
	}
	return errors.Join(errs...)
}

var (
	hostsFigure = prometheus.NewDesc("curfew_hosts", "Hosts of the fleet, by whether they are connected.", []string{"connected"}, nil)
	keyFigure   = prometheus.NewDesc("curfew_grant_key_seconds", "Seconds until the grant key runs out.", nil, nil)
	openFigure  = prometheus.NewDesc("curfew_requests_open", "Requests whose life is not over, by state.", []string{"state"}, nil)
	ruleFigure  = prometheus.NewDesc("curfew_policy_problems", "Mistakes for which the policy folder, as it is now, was not taken.", nil, nil)
	mumFigure   = prometheus.NewDesc("curfew_grants_unconfirmed", "Ended grants, by host, for which the host has not signed within a minute that nothing is left.", nil, nil)
	lateFigure  = prometheus.NewDesc("curfew_forward_behind", "Entries of the record that a target of forward has not taken yet.", []string{"target"}, nil)
	gainFigure  = prometheus.NewDesc("curfew_privilege_without_grant", "Processes of the last 24 hours that gained privilege without a grant.", nil, nil)
	mineFigure  = prometheus.NewDesc("curfew_witness_silent_seconds", "For how long a witness has not cosigned the log; 0: it does.", []string{"witness"}, nil)
	readFigure  = prometheus.NewDesc("curfew_scrape_ok", "1 if the database could be read for these figures.", nil, nil)
)

// figures are read from the database when they are asked for.
type figures struct {
	*Server
	ctx context.Context // a scrape brings none
}

// Describe implements [prometheus.Collector].
func (f *figures) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{hostsFigure, keyFigure, openFigure, ruleFigure, mumFigure, lateFigure, gainFigure, mineFigure, readFigure} {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (f *figures) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(keyFigure, f.keys.Load().GoodUntil().Sub(f.clock.Now().Wall).Seconds())
	gauge(ruleFigure, float64(len(f.rules.State().Problems)))
	count, err := f.store.Count(f.ctx, f.clock.Now().Wall.Add(-24*time.Hour))
	silent, silentErr := f.api.Unconfirmed(f.ctx)
	last, lastErr := f.store.LastEvent(f.ctx)
	witnesses, witnessErr := f.cosign.Witnesses(f.ctx)
	if errors.Join(err, silentErr, lastErr, witnessErr) != nil {
		gauge(readFigure, 0)
		return
	}
	gauge(readFigure, 1)
	for target, behind := range f.forward.Behind(last) {
		gauge(lateFigure, float64(behind), target)
	}
	for _, w := range witnesses {
		silent := time.Duration(0)
		if !w.Since.IsZero() {
			silent = f.clock.Now().Wall.Sub(w.Since)
		}
		gauge(mineFigure, silent.Seconds(), w.Name())
	}
	gauge(mumFigure, float64(len(silent)))
	gauge(gainFigure, float64(count.Privileged))
	gauge(openFigure, float64(count.Asked), "asked")
	gauge(openFigure, float64(count.Issued), "issued")
	up := 0
	for _, h := range count.Hosts {
		if f.fleet.Connected(h) {
			up++
		}
	}
	gauge(hostsFigure, float64(up), "yes")
	gauge(hostsFigure, float64(len(count.Hosts)-up), "no")
}
