package identity

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestProviderConfig(t *testing.T) {
	c := ProviderConfig{Issuer: "http://login.example", Domain: "@example.com"}
	err := c.Check()
	for _, want := range []string{"oidc.issuer", "oidc.client_id", "oidc.client_secret_file", "oidc.name", "oidc.domain"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
	if _, err := NewProvider(ProviderConfig{ClientSecretFile: filepath.Join(t.TempDir(), "none")}, origin, &fakeClock{}); err == nil {
		t.Error("a provider without its secret")
	}
}
