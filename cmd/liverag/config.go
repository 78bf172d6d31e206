package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/chunker/external"
	"github.com/liverag/liverag/internal/config"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/stream/kafka"
)

// Config holds every setting. Field values from defaultConfig are the defaults; the tags are described in package config, and
// docs/CONFIG.md is made from them.
type Config struct {
	// File is the configuration file.
	File string `name:"config" file:"no" doc:"The configuration file, YAML. Without it, liverag.yaml in the working directory is read if it is there."`
	// Data is the data directory.
	Data string `name:"data" doc:"Directory for the embedded log and the embedded store. One process at a time uses it."`
	// Listen is the API's address.
	Listen string `name:"listen" doc:"Address of the API and the web page, as host:port. If the default port is taken, up moves on to the next free one; an address that was asked for and is taken is an error."`
	// InsecureListen allows Listen to be reachable from other machines without auth.
	InsecureListen bool `name:"insecure_listen" doc:"Allow listen to be reachable from other machines although there is no authentication: anybody who reaches it can read and write everything."`
	// Server is the base URL of the running liverag that client verbs talk to. Empty: see findServer.
	Server string `name:"server" doc:"Base URL of the running liverag that a verb talks to. Empty: the one that runs on the data directory, else http:// and the listen address."`
	// Corpus names the topics and collections.
	Corpus string `name:"corpus" doc:"Name of the corpus, and of its topic: a small letter, then small letters, digits and _, at most 63."`

	Kafka     KafkaConfig     `name:"kafka"`
	Milvus    MilvusConfig    `name:"milvus"`
	Mapping   MappingConfig   `name:"mapping"`
	Documents DocumentsConfig `name:"documents"`
	Log       LogConfig       `name:"log"`

	// Chunker, Tokens, Overlap, Tokenizer, Embedder and Long are the recipe of the first generation.
	Chunker   string `name:"chunker" doc:"How documents are cut. markdown: at headings first, then like recursive. recursive: at paragraphs, lines, sentences, words. token: windows of tokens. whole: not at all. exec:./my_chunker.py: a program of yours (see programs); http://host/path: a service of yours."`
	Tokens    int    `name:"tokens" min:"16" max:"8192" doc:"Token budget of a chunk."`
	Overlap   int    `name:"overlap" min:"0" max:"8191" doc:"Tokens that neighbouring chunks share. Less than tokens."`
	Tokenizer string `name:"tokenizer" oneof:"cl100k_base o200k_base minilm" doc:"What tokens counts. minilm counts word pieces, with the two that frame an input."`
	Embedder  string `name:"embedder" doc:"The model, as provider/name: local/minilm and local/static are in the binary; openai/text-embedding-3-small stands for any model of an OpenAI-compatible endpoint (see openai.base_url); hash/384 is word hashing of any dimension, for tests and for measuring the system without a model."`
	Long      string `name:"long" oneof:"split truncate reject" doc:"What happens to a chunk over the model's limit. split: embedded in pieces, their mean kept. truncate: cut off, and counted. reject: to the dead letters."`

	// Programs is where the programs are that a recipe may name.
	Programs string `name:"programs" doc:"Directory of the programs that a recipe may name as its chunker, as in exec:./my_chunker.py. They lie directly in it. Whoever can send a recipe can start them, so it should hold no others. Empty: none; that is also the default where insecure_listen is set."`

	// Prices are of a million tokens, by model.
	Prices map[string]string `name:"prices" doc:"What a million tokens of a model cost in US dollars, as in {openai/text-embedding-3-small: 0.02}. What embedding has cost, and what a replay will cost, is told by it; without it, it is 0."`

	Spending  SpendingConfig  `name:"spending"`
	OpenAI    OpenAIConfig    `name:"openai"`
	HTTP      HTTPConfig      `name:"http"`
	Freshness FreshnessConfig `name:"freshness"`
	Indexer   IndexerConfig   `name:"indexer"`
	Cache     CacheConfig     `name:"cache"`
	Evals     EvalsConfig     `name:"evals"`

	// QueryLog is off unless somebody asks for it: questions may be private.
	QueryLog bool `name:"query_log" doc:"Keep what is asked of live, in queries/CORPUS.ndjson of the data directory, for liverag eval compare: the question's text, time, mode, k, filter, the generation that answered, how long it took and the ids of the hits; never a text. At most 64 MiB, the oldest go first; a request with the header Liverag-Unlogged is left out. What can't be written is dropped and counted, and no answer waits for it."`

	LogLevel  string `name:"log_level" oneof:"debug info warn error" doc:"The least severe messages that are written to standard error."`
	LogFormat string `name:"log_format" oneof:"text json" doc:"How messages are written."`
}

// KafkaConfig says which log to use. Without brokers it is the one embedded in the process.
type KafkaConfig struct {
	Brokers []string `name:"brokers" flag:"kafka" doc:"Kafka's bootstrap addresses, as host:port. Empty: the single-node log embedded in the process, kept in the data directory."`
	// Partitions and ReplicationFactor are of topics that are created.
	Partitions        int        `name:"partitions" min:"1" max:"10000" doc:"Partitions of a topic that is created. It can't change under an index."`
	ReplicationFactor int        `name:"replication_factor" min:"-1" max:"32767" doc:"Copies of a topic that is created; -1 leaves it to the cluster."`
	TLS               TLSConfig  `name:"tls"`
	SASL              SASLConfig `name:"sasl"`
}

// TLSConfig is how the connection to the brokers is encrypted.
type TLSConfig struct {
	Enabled            bool   `name:"enabled" doc:"Encrypt the connections to the brokers."`
	CAFile             string `name:"ca_file" doc:"PEM file of the authorities that may sign the brokers' certificates. Empty: the system's."`
	CertFile           string `name:"cert_file" doc:"PEM file of the client's certificate, with key_file."`
	KeyFile            string `name:"key_file" doc:"PEM file of the client's private key, with cert_file."`
	ServerName         string `name:"server_name" doc:"Name that the brokers' certificates must be for. Empty: the host of each broker's address."`
	InsecureSkipVerify bool   `name:"insecure_skip_verify" doc:"Accept any certificate. Only for trying things out: it protects from nobody who can intercept."`
}

// SASLConfig is how the client proves who it is.
type SASLConfig struct {
	Mechanism string `name:"mechanism" oneof:"PLAIN SCRAM-SHA-256 SCRAM-SHA-512 OAUTHBEARER" doc:"How to log in to the brokers. Empty: not at all."`
	User      string `name:"user" doc:"User name for PLAIN and SCRAM."`
	Password  string `name:"password" secret:"true" doc:"Password for PLAIN and SCRAM."`
	Token     string `name:"token" secret:"true" doc:"Bearer token for OAUTHBEARER."`
}

// MilvusConfig says which store to use. Without an address it is the one embedded in the process.
type MilvusConfig struct {
	Address  string `name:"address" flag:"milvus" doc:"Milvus's address, as host:port. Empty: the store embedded in the process, kept in the data directory. Processes that share a Milvus, and a Kafka, share the work."`
	TLS      bool   `name:"tls" doc:"Encrypt the connection to Milvus."`
	CAFile   string `name:"ca_file" doc:"PEM file of the authorities that may sign Milvus's certificate. Empty: the system's."`
	CertFile string `name:"cert_file" doc:"PEM file of the client's certificate, with key_file."`
	KeyFile  string `name:"key_file" doc:"PEM file of the client's private key, with cert_file."`
	// ServerName is checked against the certificate.
	ServerName string `name:"server_name" doc:"Name that Milvus's certificate must be for. Empty: the host of its address."`
	Database   string `name:"database" doc:"Database to use. Empty: the server's default."`
	User       string `name:"user" doc:"User name, with password."`
	Password   string `name:"password" secret:"true" doc:"Password, with user."`
	Token      string `name:"token" secret:"true" doc:"API key or token, instead of user and password."`
}

// OpenAIConfig is the endpoint of the models named openai/….
type OpenAIConfig struct {
	BaseURL    string `name:"base_url" flag:"openai-base-url" doc:"Base URL of an OpenAI-compatible endpoint, as https://host/v1. Empty: OpenAI's own."`
	APIKey     string `name:"api_key" secret:"true" doc:"The endpoint's key. Empty: the environment's OPENAI_API_KEY; endpoints on your own machines may want none."`
	Dimensions int    `name:"dimensions" flag:"openai-dimensions" min:"0" max:"32768" doc:"Length of vector to ask the model for, where it lets callers choose. 0: its own; what it answers is what counts."`
	RPM        int    `name:"rpm" flag:"openai-rpm" min:"0" doc:"Requests a minute that the endpoint allows. 0: no limit is known."`
	TPM        int    `name:"tpm" flag:"openai-tpm" min:"0" doc:"Tokens a minute that the endpoint allows. 0: no limit is known."`

	Burst          time.Duration `name:"burst" min:"0s" doc:"How long a time's allowance of rpm and tpm the endpoint lets callers use at once. 0: what its answers tell; where they don't, half a second, and a minute if rpm is below 60."`
	Concurrency    int           `name:"concurrency" min:"1" max:"1024" doc:"Requests in flight at once."`
	MaxInput       int           `name:"max_input" min:"0" doc:"Longest input that the model reads, in tokens. 0: what is known of the model; else the endpoint itself says what is too long."`
	MaxBatch       int           `name:"max_batch" min:"0" max:"4096" doc:"Most inputs in a request. 0: what is known of the model, at most 128, else 32."`
	MaxBatchTokens int           `name:"max_batch_tokens" min:"0" doc:"Most tokens in a request. 0: what is known of the model, else no limit."`
	Timeout        time.Duration `name:"timeout" min:"100ms" doc:"How long a request may take before it is tried again."`
	Encoding       string        `name:"encoding" oneof:"base64 float" doc:"How vectors are asked for. base64 is a quarter of the bytes; an endpoint that does not know it is asked for float."`

	IndexPrefix    string            `name:"index_prefix" doc:"Text put before every chunk of a document, for models that want one, like \"passage: \"."`
	QueryPrefix    string            `name:"query_prefix" doc:"Text put before every question, for models that want one, like \"query: \"."`
	InputTypeField string            `name:"input_type_field" doc:"Field of the request that tells documents from questions, for endpoints that have one. Empty: input_type."`
	IndexInputType string            `name:"index_input_type" doc:"What that field says for chunks of documents, like search_document."`
	QueryInputType string            `name:"query_input_type" doc:"What that field says for questions, like search_query."`
	Headers        map[string]string `name:"headers" doc:"Headers sent with every request. A secret belongs into api_key."`

	Failover FailoverConfig `name:"failover"`
}

// FailoverConfig is another endpoint of the same models, which stands in while the first is down or refuses us. What it does not say is as for the first.
type FailoverConfig struct {
	BaseURL     string            `name:"base_url" doc:"Base URL of a second endpoint of the same model, which stands in while the first one is down or refuses the key. Its vectors are compared with the first one's before they are used; if they differ, that is an error. Empty: none stands in."`
	APIKey      string            `name:"api_key" secret:"true" doc:"The second endpoint's key. Empty: none is sent; the first one's is never sent there."`
	Model       string            `name:"model" doc:"What the second endpoint calls the model. Empty: as the first."`
	RPM         int               `name:"rpm" min:"0" doc:"Requests a minute that the second endpoint allows, whatever the first does. 0: no limit is known."`
	TPM         int               `name:"tpm" min:"0" doc:"Tokens a minute that the second endpoint allows, whatever the first does. 0: no limit is known."`
	Concurrency int               `name:"concurrency" min:"0" max:"1024" doc:"Requests in flight at once at the second endpoint. 0: as openai.concurrency."`
	Headers     map[string]string `name:"headers" doc:"Headers sent with every request to the second endpoint. The first one's are not. A secret belongs into api_key."`
}

// SpendingConfig bounds what embedding may take in a day.
type SpendingConfig struct {
	DailyUSD    float64 `name:"daily_usd" min:"0" doc:"US dollars that embedding may cost in a day (UTC), by prices. When they are spent, documents wait until midnight, GET /spending and GET /generations say so, and nothing is lost. Questions count too and are never refused: a chatbot goes on answering. It holds over restarts, for each process that indexes with a data directory of its own, and not for evals and benchmarks. A process that is killed may forget the last second. 0: no cap."`
	DailyTokens int     `name:"daily_tokens" min:"0" doc:"The same cap in tokens, as the providers of models named openai/… count them. Models that run in this process are free. 0: no cap."`
}

// MappingConfig reads a topic whose values have another shape. Each is an expression as stream.ParseExpr reads it.
type MappingConfig struct {
	ID          string            `name:"id" doc:"Where the document's id is, as in $.pk. Empty: the record's key."`
	Text        string            `name:"text" doc:"Where the text is, as in $.title + \"\\n\\n\" + $.body. Setting it turns the mapping on."`
	ContentType string            `name:"content_type" doc:"Where the content type is. Empty: text/plain."`
	Title       string            `name:"title" doc:"Where the title is."`
	URL         string            `name:"url" doc:"Where the URL is."`
	Deleted     string            `name:"deleted" doc:"What is true of a value that means a deletion, as in $.op == \"d\". A null value always does."`
	Backfill    string            `name:"backfill" doc:"What is true of a value that is imported history and waits behind what people change now, as in $.op == \"r\". A record with the header liverag-backfill always is."`
	UpdatedAt   string            `name:"updated_at" doc:"Where the time of change at the origin is: RFC 3339, or Unix time in seconds down to nanoseconds. Empty: the record's timestamp."`
	Tenant      string            `name:"tenant" doc:"Where the tenant is."`
	ACL         string            `name:"acl" doc:"Where the list of principals is that may read the document."`
	Metadata    map[string]string `name:"metadata" doc:"Metadata fields, each with where its value is."`
}

// mapping parses the expressions; nil if there are none. An error is a *config.Error that names the setting.
func (m *MappingConfig) mapping() (*stream.Mapping, error) {
	out := &stream.Mapping{}
	var errs []error
	parse := func(name, source string, into *stream.Expr) {
		if source == "" {
			return
		}
		var err error
		if *into, err = stream.ParseExpr(source); err != nil {
			errs = append(errs, &config.Error{Setting: "mapping." + name, Detail: err.Error()})
		} else if m.Text == "" {
			errs = append(errs, &config.Error{Setting: "mapping." + name, Detail: "has no effect without mapping.text"})
		}
	}
	parse("id", m.ID, &out.ID)
	parse("text", m.Text, &out.Text)
	parse("content_type", m.ContentType, &out.ContentType)
	parse("title", m.Title, &out.Title)
	parse("url", m.URL, &out.URL)
	parse("deleted", m.Deleted, &out.Deleted)
	parse("backfill", m.Backfill, &out.Backfill)
	parse("updated_at", m.UpdatedAt, &out.UpdatedAt)
	parse("tenant", m.Tenant, &out.Tenant)
	parse("acl", m.ACL, &out.ACL)
	for _, field := range slices.Sorted(maps.Keys(m.Metadata)) {
		var e stream.Expr
		parse("metadata", m.Metadata[field], &e)
		if out.Metadata == nil {
			out.Metadata = map[string]stream.Expr{}
		}
		out.Metadata[field] = e
	}
	if err := errors.Join(errs...); err != nil || m.Text == "" {
		return nil, err
	}
	return out, nil
}

// DocumentsConfig bounds documents.
type DocumentsConfig struct {
	MaxBytes config.Bytes `name:"max_bytes" min:"1KiB" max:"256MiB" doc:"The longest text of a document. A longer one is refused with document_too_large."`
}

// LogConfig bounds the embedded log.
type LogConfig struct {
	MaxBytes config.Bytes `name:"max_bytes" min:"1MiB" doc:"Size of the embedded log at which writes are refused with log_full. Nothing is dropped."`
}

// HTTPConfig bounds what callers may ask for at once.
type HTTPConfig struct {
	MaxBody     config.Bytes `name:"max_body" min:"1KiB" max:"4GiB" doc:"The largest body of a request, other than of documents: those follow documents.max_bytes."`
	MaxInFlight int          `name:"max_in_flight" min:"1" max:"1000000" doc:"Requests answered at the same time. Those above it are told to come back (503)."`
}

// FreshnessConfig is what freshness is promised.
type FreshnessConfig struct {
	SLO SLOConfig `name:"slo"`
}

// SLOConfig is the objective that GET /freshness reports on.
type SLOConfig struct {
	Target     time.Duration `name:"target" min:"1ms" doc:"Within this time a change is to be searchable."`
	Percentile float64       `name:"percentile" min:"0.5" max:"1" doc:"For this share of the changes."`
}

// IndexerConfig bounds the pipeline.
type IndexerConfig struct {
	MaxInFlightBytes config.Bytes `name:"max_in_flight_bytes" min:"1MiB" doc:"Changes being indexed at once, in bytes. Above it partitions pause."`
}

// EvalsConfig is what answers are measured on.
type EvalsConfig struct {
	Questions string     `name:"questions" doc:"File of questions with their right documents, on which a promote's gate is measured: a JSON object a line, {\"query\": …, \"documents\": [ids]}. It is read whenever it is needed. Empty: a promote with a gate is refused."`
	Chat      ChatConfig `name:"chat"`
}

// ChatConfig is the chat model that may write questions.
type ChatConfig struct {
	Model string `name:"model" doc:"Chat model of the endpoint openai.base_url that writes questions for liverag eval compare, out of chunks of the corpus, where there are no labelled ones. It sees those chunks. Empty: none."`
}

// CacheConfig bounds the cache of vectors.
type CacheConfig struct {
	MaxBytes config.Bytes `name:"max_bytes" min:"0" doc:"Size on disk of the cache of vectors that replays reuse. 0 turns it off."`
}

func defaultConfig() Config {
	return Config{
		Data:      "liverag-data",
		Listen:    "127.0.0.1:8080",
		Corpus:    "documents",
		Kafka:     KafkaConfig{Partitions: 4, ReplicationFactor: -1},
		OpenAI:    OpenAIConfig{Concurrency: 8, Timeout: time.Minute, Encoding: "base64"},
		Documents: DocumentsConfig{MaxBytes: 8 << 20},
		Log:       LogConfig{MaxBytes: 1 << 30},
		Chunker:   "markdown",
		Tokens:    200,
		Tokenizer: "cl100k_base",
		Embedder:  "local/minilm",
		Long:      "split",
		Programs:  ".",
		HTTP:      HTTPConfig{MaxBody: 64 << 20, MaxInFlight: 256},
		Freshness: FreshnessConfig{SLOConfig{Target: 2 * time.Second, Percentile: 0.99}},
		Indexer:   IndexerConfig{MaxInFlightBytes: 64 << 20},
		Cache:     CacheConfig{MaxBytes: 512 << 20},
		LogLevel:  "info",
		LogFormat: "text",
	}
}

const (
	envPrefix   = "LIVERAG_"
	defaultFile = "liverag.yaml"
)

// envIgnored are variables with our prefix that are no settings: LIVERAG_SIMD names the kernel to be used, LIVERAG_SHARED the data that some tests read.
var envIgnored = []string{"LIVERAG_SIMD", "LIVERAG_SHARED"}

// loadConfig joins defaults, file, environment and flags, and checks the result. What it returns besides an error is good enough to
// show, not to run with.
func loadConfig(environ []string, flags []config.FlagValue) (*Config, *config.Settings, error) {
	cfg := defaultConfig()
	src := config.Sources{Environ: environ, Prefix: envPrefix, Ignore: envIgnored, Flags: flags}
	path, named := configFile(environ, flags)
	content, err := os.ReadFile(path)
	switch {
	case err == nil:
		src.File, src.Content = path, content
		cfg.File = path
	case named || !errors.Is(err, fs.ErrNotExist):
		return &cfg, nil, fmt.Errorf("config: can't read the configuration file: %w", err)
	}
	settings, err := config.Load(&cfg, src)
	if err != nil {
		return &cfg, settings, err
	}
	for _, pair := range environ {
		if key, ok := strings.CutPrefix(pair, "OPENAI_API_KEY="); ok && cfg.OpenAI.APIKey == "" {
			cfg.OpenAI.APIKey = key
		}
	}
	return &cfg, settings, cfg.validate(settings)
}

// configFile finds the file's name before anything else is known. named tells whether somebody asked for it.
func configFile(environ []string, flags []config.FlagValue) (path string, named bool) {
	for _, f := range flags {
		if f.Name == "config" && f.Value != "" {
			path, named = f.Value, true
		}
	}
	if named {
		return path, named
	}
	for _, pair := range environ {
		if value, ok := strings.CutPrefix(pair, envPrefix+"CONFIG="); ok && value != "" {
			return value, true
		}
	}
	return defaultFile, false
}

var (
	nameForm  = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
	modelForm = regexp.MustCompile(`^[a-z0-9-]+/[^\s]+$`)
)

// validate checks what the tags can't say.
func (c *Config) validate(s *config.Settings) error {
	var errs []error
	fail := func(name, detail string, args ...any) { errs = append(errs, s.Errorf(name, detail, args...)) }

	if c.Data == "" {
		fail("data", "must name a directory")
	}
	if host, err := checkAddress(c.Listen); err != nil {
		fail("listen", "%v", err)
	} else if !c.InsecureListen && !isLoopback(host) {
		fail("listen", "%s can be reached from other machines, and there is no authentication: listen on 127.0.0.1, or set insecure_listen to true", c.Listen)
	}
	if c.Server != "" {
		if u, err := url.Parse(c.Server); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			fail("server", "%q is no base URL: write it like http://127.0.0.1:8080", c.Server)
		}
	}
	if !nameForm.MatchString(c.Corpus) {
		fail("corpus", "%q is no name: a small letter, then small letters, digits and _, at most 63", c.Corpus)
	}
	if c.Overlap >= c.Tokens {
		fail("overlap", "must be less than tokens (%d), not %d", c.Tokens, c.Overlap)
	}
	if !slices.Contains(chunker.Strategies(), c.Chunker) && !external.Names(c.Chunker) {
		fail("chunker", "must be one of %s, exec:./program or http://host/path, not %q", strings.Join(chunker.Strategies(), ", "), c.Chunker)
	}
	if c.InsecureListen && s.Origin("programs").IsDefault() {
		c.Programs = ""
	}
	if !modelForm.MatchString(c.Embedder) {
		fail("embedder", "%q is no model: write it as provider/name, like local/static or hash/384", c.Embedder)
	}
	for _, model := range slices.Sorted(maps.Keys(c.Prices)) {
		if price, err := strconv.ParseFloat(c.Prices[model], 64); err != nil || !(price >= 0 && price < 1e6) {
			fail("prices", "%q of %s is no price: it is in US dollars a million tokens, like 0.02", c.Prices[model], model)
		} else if !modelForm.MatchString(model) {
			fail("prices", "%q is no model: write it as provider/name, like openai/text-embedding-3-small", model)
		}
	}
	c.Kafka.validate(fail)
	c.Milvus.validate(fail)
	c.OpenAI.validate(fail)
	c.Spending.validate(c.Embedder, c.Prices, fail)
	if c.Milvus.Address != "" && len(c.Kafka.Brokers) == 0 {
		fail("milvus.address", "needs kafka.brokers too: a store that processes share goes with a log that they share")
	}
	if _, err := c.Mapping.mapping(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (k *KafkaConfig) validate(fail func(name, detail string, args ...any)) {
	for _, broker := range k.Brokers {
		if _, err := checkAddress(broker); err != nil {
			fail("kafka.brokers", "%v", err)
		}
	}
	t := k.TLS
	if t.Enabled && len(k.Brokers) == 0 {
		fail("kafka.tls.enabled", "has no effect without kafka.brokers")
	}
	if !t.Enabled && t != (TLSConfig{}) {
		fail("kafka.tls.enabled", "must be true, or every other kafka.tls setting be removed")
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		fail("kafka.tls.cert_file", "and kafka.tls.key_file belong together: set both or none")
	}
	switch sasl := k.SASL; sasl.Mechanism {
	case "":
		if sasl != (SASLConfig{}) {
			fail("kafka.sasl.mechanism", "must be set for the other kafka.sasl settings to have an effect: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER")
		}
	case "OAUTHBEARER":
		if sasl.Token == "" {
			fail("kafka.sasl.token", "is required by OAUTHBEARER; set it in the file or as %sKAFKA_SASL_TOKEN", envPrefix)
		}
	default:
		if sasl.User == "" {
			fail("kafka.sasl.user", "is required by %s", sasl.Mechanism)
		}
		if sasl.Password == "" {
			fail("kafka.sasl.password", "is required by %s; set it in the file or as %sKAFKA_SASL_PASSWORD", sasl.Mechanism, envPrefix)
		}
	}
	if k.SASL.Mechanism != "" && len(k.Brokers) == 0 {
		fail("kafka.sasl.mechanism", "has no effect without kafka.brokers")
	}
}

func (m *MilvusConfig) validate(fail func(name, detail string, args ...any)) {
	if m.Address == "" {
		if *m != (MilvusConfig{}) {
			fail("milvus.address", "must be set for the other milvus settings to have an effect")
		}
		return
	}
	if _, err := checkAddress(m.Address); err != nil {
		fail("milvus.address", "%v", err)
	}
	if !m.TLS && (m.CAFile != "" || m.CertFile != "" || m.KeyFile != "" || m.ServerName != "") {
		fail("milvus.tls", "must be true for milvus.ca_file, milvus.cert_file, milvus.key_file and milvus.server_name to have an effect")
	}
	if (m.CertFile == "") != (m.KeyFile == "") {
		fail("milvus.cert_file", "and milvus.key_file belong together: set both or none")
	}
	if m.Token != "" && (m.User != "" || m.Password != "") {
		fail("milvus.token", "and milvus.user with milvus.password are two ways to log in: set one")
	}
	if (m.User == "") != (m.Password == "") {
		fail("milvus.user", "and milvus.password belong together; set the password in the file or as %sMILVUS_PASSWORD", envPrefix)
	}
}

func (o *OpenAIConfig) validate(fail func(name, detail string, args ...any)) {
	if u, err := url.Parse(o.BaseURL); o.BaseURL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		fail("openai.base_url", "%q is no base URL: write it like https://host/v1", o.BaseURL)
	}
	f := o.Failover
	if u, err := url.Parse(f.BaseURL); f.BaseURL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		fail("openai.failover.base_url", "%q is no base URL: write it like https://host/v1", f.BaseURL)
	}
	if f.BaseURL == "" && (f.APIKey != "" || f.Model != "" || f.RPM != 0 || f.TPM != 0 || f.Concurrency != 0 || len(f.Headers) > 0) {
		fail("openai.failover.base_url", "must be set, or every other openai.failover setting be removed")
	}
	if f.BaseURL != "" && f.BaseURL == o.BaseURL && f.Model == "" && f.APIKey == o.APIKey && maps.Equal(f.Headers, o.Headers) {
		fail("openai.failover.base_url", "is the first endpoint once more: name another one, or another key")
	}
	if o.InputTypeField != "" && o.IndexInputType == "" && o.QueryInputType == "" {
		fail("openai.input_type_field", "goes with openai.index_input_type or openai.query_input_type")
	}
	for name := range o.Headers {
		if strings.EqualFold(name, "Authorization") {
			fail("openai.headers", "must not hold %s: the key is openai.api_key or OPENAI_API_KEY", name)
		}
	}
	for name := range f.Headers {
		if strings.EqualFold(name, "Authorization") {
			fail("openai.failover.headers", "must not hold %s: the key is openai.failover.api_key", name)
		}
	}
}

// checkAddress wants host:port and returns the host.
func checkAddress(address string) (host string, err error) {
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return "", fmt.Errorf("%q is no address: write it as host:port, like 127.0.0.1:8080", address)
	}
	return host, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// kafka is how stream/kafka takes the settings of a cluster; the caller adds what is not about the connection.
func (k *KafkaConfig) kafka() kafka.Config {
	return kafka.Config{
		Brokers: k.Brokers, Partitions: int32(k.Partitions), ReplicationFactor: int16(k.ReplicationFactor),
		TLS: kafka.TLS{
			Enable: k.TLS.Enabled, CAFile: k.TLS.CAFile, CertFile: k.TLS.CertFile, KeyFile: k.TLS.KeyFile,
			ServerName: k.TLS.ServerName, InsecureSkipVerify: k.TLS.InsecureSkipVerify,
		},
		SASL: kafka.SASL{Mechanism: k.SASL.Mechanism, User: k.SASL.User, Password: k.SASL.Password, Token: k.SASL.Token},
	}
}
