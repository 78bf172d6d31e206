package kafka

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kfake"
)

// certificate makes one for 127.0.0.1 that signs itself, and gives the files that hold it and its key.
func certificate(t *testing.T) (cert tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "broker"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"broker.test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certFile, keyFile = write("cert.pem", "CERTIFICATE", der), write("key.pem", "EC PRIVATE KEY", keyDER)
	if cert, err = tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	return cert, certFile, keyFile
}

func cluster(t *testing.T, opts ...kfake.Opt) []string {
	t.Helper()
	c, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()
}

// works opens a log, appends to it and reads it back.
func works(t *testing.T, cfg Config) {
	t.Helper()
	l := openLog(t, cfg)
	if _, err := l.Append(t.Context(), upsert("a", "x")); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, l, stream.From{}); len(got) != 1 || got[0].ID != "a" {
		t.Errorf("got %v", got)
	}
}

// fails opens a log and wants an error, soon, with these words.
func fails(t *testing.T, cfg Config, words ...string) {
	t.Helper()
	cfg.Logger, cfg.Timeout = quiet, 1500*time.Millisecond
	began := time.Now()
	l, err := Open(t.Context(), cfg)
	if err == nil {
		l.Close()
		t.Fatal("it opened")
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %v; want %q in it", err, w)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cert, certFile, keyFile := certificate(t)
	_, otherFile, _ := certificate(t)
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	brokers := cluster(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}}))
	works(t, Config{Brokers: brokers, TLS: TLS{Enable: true, CAFile: certFile}})
	works(t, Config{Brokers: brokers, Corpus: "second", TLS: TLS{Enable: true, CAFile: certFile, ServerName: "broker.test"}})
	works(t, Config{Brokers: brokers, Corpus: "third", TLS: TLS{Enable: true, InsecureSkipVerify: true}})
	fails(t, Config{Brokers: brokers, TLS: TLS{Enable: true}}, brokers[0], "kafka.tls")
	fails(t, Config{Brokers: brokers, TLS: TLS{Enable: true, CAFile: otherFile}}, brokers[0], "kafka.tls")
	fails(t, Config{Brokers: brokers, TLS: TLS{Enable: true, CAFile: certFile, ServerName: "another.test"}}, "another.test", "kafka.tls")
	fails(t, Config{Brokers: brokers}, brokers[0], "kafka.tls")
	fails(t, Config{Brokers: cluster(t), TLS: TLS{Enable: true, CAFile: certFile}}, "kafka.tls")
	fails(t, Config{Brokers: brokers, TLS: TLS{Enable: true, CAFile: keyFile}}, "no certificate", keyFile)
	fails(t, Config{Brokers: brokers, TLS: TLS{Enable: true, CAFile: "absent.pem"}}, "kafka.tls.ca_file", "absent.pem")

	mutual := cluster(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}))
	works(t, Config{Brokers: mutual, TLS: TLS{Enable: true, CAFile: certFile, CertFile: certFile, KeyFile: keyFile}})
	fails(t, Config{Brokers: mutual, TLS: TLS{Enable: true, CAFile: certFile}}, "kafka.tls")
}

func TestSASL(t *testing.T) {
	t.Parallel()
	cert, certFile, _ := certificate(t)
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			brokers := cluster(t, kfake.EnableSASL(), kfake.Superuser(mechanism, "ada", "right"), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}}))
			encrypted := TLS{Enable: true, CAFile: certFile}
			works(t, Config{Brokers: brokers, TLS: encrypted, SASL: SASL{Mechanism: mechanism, User: "ada", Password: "right"}})
			works(t, Config{Brokers: brokers, Corpus: "second", TLS: encrypted, SASL: SASL{Mechanism: strings.ToLower(mechanism), User: "ada", Password: "right"}})
			fails(t, Config{Brokers: brokers, TLS: encrypted, SASL: SASL{Mechanism: mechanism, User: "ada", Password: "wrong"}}, brokers[0], "kafka.sasl.user", "password")
			fails(t, Config{Brokers: brokers, TLS: encrypted, SASL: SASL{Mechanism: mechanism, User: "eve", Password: "right"}}, brokers[0], "kafka.sasl.user")
			fails(t, Config{Brokers: brokers, TLS: encrypted, SASL: SASL{Mechanism: "OAUTHBEARER", Token: "x"}}, "kafka.sasl")
			fails(t, Config{Brokers: brokers, TLS: encrypted}, brokers[0], "kafka.sasl")
		})
	}
	fails(t, Config{Brokers: []string{"x:1"}, SASL: SASL{Mechanism: "GSSAPI"}}, "GSSAPI", "OAUTHBEARER")
	fails(t, Config{Brokers: []string{"x:1"}, SASL: SASL{User: "ada"}}, "kafka.sasl.mechanism")
	fails(t, Config{Brokers: []string{"x:1"}, SASL: SASL{Mechanism: "OAUTHBEARER"}}, "kafka.sasl.token")
}

func TestConfig(t *testing.T) {
	for want, cfg := range map[string]Config{
		"kafka.brokers":       {},
		"[a-z][a-z0-9_]":      {Brokers: []string{"x:1"}, Corpus: "Not.Allowed"},
		"documents.max_bytes": {Brokers: []string{"x:1"}, MaxDocumentBytes: 1 << 30},
	} {
		fails(t, cfg, want)
	}
	mechanism, err := (&SASL{Mechanism: "OAUTHBEARER", Token: "secret"}).mechanism()
	if err != nil || mechanism.Name() != "OAUTHBEARER" {
		t.Fatalf("got %v, %v", mechanism, err)
	}
	_, hello, err := mechanism.Authenticate(t.Context(), "broker")
	if err != nil || !strings.Contains(string(hello), "auth=Bearer secret") {
		t.Errorf("it says %q, %v", hello, err)
	}
}
