package keyfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAKeyComesBackAsItWas(t *testing.T) {
	name := filepath.Join(t.TempDir(), "key")
	made, err := Make(name)
	if err != nil {
		t.Fatal(err)
	}
	if read, err := Read(name); err != nil || !read.Equal(made) {
		t.Errorf("read %v, %v", read, err)
	}
	st, err := os.Stat(name)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, err := Make(name); err == nil {
		t.Error("a key that was there is written over")
	}
	if read, err := Read(name); err != nil || !read.Equal(made) {
		t.Errorf("after that it is %v, %v", read, err)
	}
}

func TestWhatIsNoKeyIsRefused(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"empty":           "",
		"of another kind": "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2\nOF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r\n1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G\n-----END PRIVATE KEY-----\n",
		"broken":          "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := ReadPublic(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s as a public key: %v", name, err)
		}
	}
}
