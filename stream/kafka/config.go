package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/liverag/liverag/internal/tlsfile"
	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Config says which log to open and how. Only Brokers is required.
type Config struct {
	// Brokers are the addresses HOST:PORT to start from.
	Brokers []string
	// Corpus names the topics: <corpus>, <corpus>.dlq, <corpus>.control and <corpus>.feedback. Default: documents.
	Corpus string
	// Partitions is how many a topic that has to be created gets. A topic that exists keeps its own number. Default: 4.
	Partitions int32
	// ReplicationFactor of topics that have to be created. Default: the broker's default.
	ReplicationFactor int16
	// MaxDocumentBytes is the longest text of a document; the limits of topic, producer and reader follow from it. Default: 8 MiB.
	MaxDocumentBytes int
	// Epoch is part of every change's version. Default: 0.
	Epoch int32
	// Mapping reads values of another shape. Default: none.
	Mapping *stream.Mapping
	// ReadOnly: the topic belongs to somebody else. It must exist; Append is refused. The dead-letter and control topics are
	// ours nevertheless. Default: false.
	ReadOnly bool
	// Passive: whoever opens the log only reads the topic, beside those who run on it. It is ReadOnly, and nothing is created, the dead-letter and
	// control topics neither. Default: false.
	Passive bool

	TLS  TLS
	SASL SASL

	// Timeout bounds every call to a broker that the caller's context does not bound more tightly. Default: 10 s.
	Timeout time.Duration
	// EndsEvery is how often a source observes the ends of its partitions. Default: 200 ms.
	EndsEvery time.Duration
	// SessionTimeout is how long a silent member of a consumer group keeps its partitions. Default: 45 s.
	SessionTimeout time.Duration
	// RebalanceTimeout is how long a member of a consumer group may take to give its partitions away: longer than the longest
	// time between two calls of Next. Default: 60 s.
	RebalanceTimeout time.Duration

	// Dialer replaces TCP; TLS is then the dialer's own business. Default: TCP, 5 s.
	Dialer func(ctx context.Context, network, address string) (net.Conn, error)
	// Embedded is the log in this process. It sets Brokers and Dialer. Default: none.
	Embedded *Embedded
	// Logger tells when a broker goes and comes back. Default: slog.Default().
	Logger *slog.Logger
}

// TLS says how to encrypt, and whom to trust.
type TLS struct {
	Enable bool
	// CAFile holds the certificates, as PEM, that may sign the broker's. Default: the system's.
	CAFile string
	// CertFile and KeyFile, as PEM, name this client. Default: none.
	CertFile, KeyFile string
	// ServerName is what the broker's certificate must say. Default: the host dialled.
	ServerName string
	// InsecureSkipVerify trusts whoever answers.
	InsecureSkipVerify bool
}

// SASL says who we are. An empty Mechanism means nobody.
type SASL struct {
	// Mechanism is PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.
	Mechanism      string
	User, Password string
	// Token is for OAUTHBEARER.
	Token string
}

// slack is what a record may have besides its text: metadata, title, key, headers.
const slack = 1 << 20

var corpusName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

func (c Config) withDefaults() (Config, error) {
	if c.Embedded != nil {
		c.Brokers, c.Dialer = c.Embedded.Brokers(), c.Embedded.Dialer()
	}
	if len(c.Brokers) == 0 {
		return c, errors.New("no broker given: set kafka.brokers to HOST:PORT,…")
	}
	c.ReadOnly = c.ReadOnly || c.Passive
	if c.Corpus == "" {
		c.Corpus = "documents"
	}
	if !c.ReadOnly && !corpusName.MatchString(c.Corpus) {
		return c, fmt.Errorf("corpus %q: a name is [a-z][a-z0-9_]{0,62}", c.Corpus)
	}
	if c.Partitions <= 0 {
		c.Partitions = 4
	}
	if c.ReplicationFactor == 0 {
		c.ReplicationFactor = -1
	}
	if c.MaxDocumentBytes <= 0 {
		c.MaxDocumentBytes = 8 << 20
	}
	if c.MaxDocumentBytes > 256<<20 {
		return c, fmt.Errorf("documents.max_bytes is %d: the most is 256 MiB", c.MaxDocumentBytes)
	}
	if c.Timeout <= 0 {
		c.Timeout = 10 * time.Second
	}
	if c.EndsEvery <= 0 {
		c.EndsEvery = 200 * time.Millisecond
	}
	if c.SessionTimeout <= 0 {
		c.SessionTimeout = 45 * time.Second
	}
	if c.RebalanceTimeout <= 0 {
		c.RebalanceTimeout = 60 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// maxRecordBytes has room for a text of which every byte has to be escaped once.
func (c *Config) maxRecordBytes() int32 { return int32(2*c.MaxDocumentBytes + slack) }

func (c *Config) options(hooks ...kgo.Hook) ([]kgo.Opt, error) {
	record := c.maxRecordBytes()
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID("liverag"),
		kgo.WithHooks(hooks...),
		kgo.RequestTimeoutOverhead(c.Timeout),
		kgo.RetryTimeout(c.Timeout),
		kgo.RetryBackoffFn(func(tries int) time.Duration {
			return min(50*time.Millisecond<<min(tries-1, 5), time.Second)
		}),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.BrokerMaxWriteBytes(max(100<<20, 2*record)),
		kgo.BrokerMaxReadBytes(max(100<<20, 4*record)),
	}
	if c.Dialer != nil {
		opts = append(opts, kgo.Dialer(c.Dialer))
	} else {
		dialer := &net.Dialer{Timeout: min(5*time.Second, c.Timeout)}
		if !c.TLS.Enable {
			opts = append(opts, kgo.Dialer(dialer.DialContext))
		} else {
			conf, err := c.TLS.config()
			if err != nil {
				return nil, err
			}
			opts = append(opts, kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
				conf := conf.Clone()
				if conf.ServerName == "" {
					conf.ServerName, _, _ = net.SplitHostPort(address)
				}
				return (&tls.Dialer{NetDialer: dialer, Config: conf}).DialContext(ctx, network, address)
			}))
		}
	}
	mechanism, err := c.SASL.mechanism()
	if err != nil {
		return nil, err
	}
	if mechanism != nil {
		opts = append(opts, kgo.SASL(mechanism))
	}
	return opts, nil
}

func (t *TLS) config() (*tls.Config, error) {
	conf, err := tlsfile.Files{CA: t.CAFile, Cert: t.CertFile, Key: t.KeyFile, ServerName: t.ServerName}.Config("kafka.tls")
	if err == nil {
		conf.InsecureSkipVerify = t.InsecureSkipVerify
	}
	return conf, err
}

func (s *SASL) mechanism() (sasl.Mechanism, error) {
	switch strings.ToUpper(s.Mechanism) {
	case "":
		if s.User != "" || s.Password != "" || s.Token != "" {
			return nil, errors.New("kafka.sasl.mechanism is not set: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER")
		}
		return nil, nil
	case "PLAIN":
		return plain.Auth{User: s.User, Pass: s.Password}.AsMechanism(), nil
	case "SCRAM-SHA-256":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha256Mechanism(), nil
	case "SCRAM-SHA-512":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha512Mechanism(), nil
	case "OAUTHBEARER":
		if s.Token == "" {
			return nil, errors.New("kafka.sasl.token is not set; OAUTHBEARER needs it")
		}
		return oauth.Auth{Token: s.Token}.AsMechanism(), nil
	}
	return nil, fmt.Errorf("kafka.sasl.mechanism %q is unknown: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER", s.Mechanism)
}
