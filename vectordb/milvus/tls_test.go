package milvus

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
	"testing"
	"time"

	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// issuer signs certificates for 127.0.0.1.
type issuer struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{t: t, dir: t.TempDir()}
	i.cert, i.key = i.sign("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return i
}

func (i *issuer) file(name string) string { return filepath.Join(i.dir, name+".pem") }

// sign writes NAME.pem and NAME-key.pem.
func (i *issuer) sign(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := i.cert, i.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		i.t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		i.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{i.file(name): {Type: "CERTIFICATE", Bytes: der}, i.file(name + "-key"): {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			i.t.Fatal(err)
		}
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		i.t.Fatal(err)
	}
	return made, key
}

// TestTLS opens the store on a server that encrypts, and wants to know its callers.
func TestTLS(t *testing.T) {
	ours, theirs := newIssuer(t), newIssuer(t)
	ours.sign("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"milvus.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	ours.sign("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	pair, err := tls.LoadX509KeyPair(ours.file("server"), ours.file("server-key"))
	if err != nil {
		t.Fatal(err)
	}
	known := x509.NewCertPool()
	known.AddCert(ours.cert)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: known})))
	milvuspb.RegisterMilvusServiceServer(server, &faulty{})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)

	good := TLS{Enable: true, CAFile: ours.file("ca"), CertFile: ours.file("client"), KeyFile: ours.file("client-key")}
	named, stranger, otherName, anonymous := good, good, good, good
	named.ServerName = "milvus.test"
	stranger.CAFile = theirs.file("ca")
	otherName.ServerName = "elsewhere.test"
	anonymous.CertFile, anonymous.KeyFile = "", ""
	for _, tt := range []struct {
		name string
		tls  TLS
		ok   bool
	}{
		{"as it should be", good, true},
		{"by its name", named, true},
		{"signed by a stranger", stranger, false},
		{"another name", otherName, false},
		{"without a certificate of ours", anonymous, false},
		{"in the clear", TLS{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Open(t.Context(), Config{Address: l.Addr().String(), Corpus: "c", TLS: tt.tls, Timeouts: Timeouts{Dial: 2 * time.Second}})
			if (err == nil) != tt.ok {
				t.Errorf("%v", err)
			}
			if err == nil {
				_ = s.Close()
			}
		})
	}
}
