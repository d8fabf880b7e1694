package identity

import (
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"curfew.internal/clock"
)

// hangs takes a call and never answers it.
type hangs struct{}

func (hangs) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// Nobody waits for what others wait for at a provider that hangs.
func TestProviderThatHangs(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		p, err := NewProvider(ProviderConfig{Name: "Example", Issuer: "https://login.example", ClientID: "c", ClientSecretFile: secret}, origin, clock.System{})
		if err != nil {
			t.Fatal(err)
		}
		p.client.Transport = hangs{}
		begun := time.Now()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if at, err := p.away(t.Context(), errand{}); err == nil {
					t.Errorf("sent to %q", at)
				}
			})
		}
		all.Wait()
		if took := time.Since(begun); took != providerWithin { // by the bubble's clock
			t.Errorf("the last of them has waited for %v", took)
		}
	})
}
