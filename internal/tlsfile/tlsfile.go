// Package tlsfile makes a client's TLS configuration out of files.
package tlsfile

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// Files are what a client's settings name. All are optional.
type Files struct {
	// CA is a PEM file of the authorities that may sign the server's certificate. Empty: the system's.
	CA string
	// Cert and Key are PEM files of the client's own certificate. Empty: none is shown.
	Cert, Key string
	// ServerName is what the server's certificate must be for. Empty: the host that is dialled.
	ServerName string
}

// Config reads the files. Its errors name the setting; section is what stands before .ca_file in its name.
func (f Files) Config(section string) (*tls.Config, error) {
	c := &tls.Config{ServerName: f.ServerName, MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("%s.ca_file: %w", section, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s.ca_file: %s holds no certificate in PEM form", section, f.CA)
		}
	}
	if f.Cert != "" || f.Key != "" {
		cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("%s.cert_file and %s.key_file: %w", section, section, err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}
