// Package milvus is the shared store: generations as collections of a Milvus server, which many processes write and search at once.
//
// A generation is one collection, a chunk is one row, and the document's own row, its first, is its head: what commits the revision. Rows are never
// changed: a row's key names the document, the version of its content and the version of its access, so a late writer adds rows that lose and
// takes nothing away. Of a document the newest version that has a head is the one that is shown; every search looks the heads of what it found up.
// docs/adr/0009-milvus-rows.md has the reasons and the figures.
//
// Milvus acknowledges a write some 0.3 s before a search can find it: see [Store.Visible].
//
// Beyond the port, a document's metadata, and its access list, must each fit 65,535 bytes as JSON, and a document has at most 4,096 filterable values,
// principals included. More than 16,384 candidates a leg are never found.
package milvus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	grpc_retry "github.com/grpc-ecosystem/go-grpc-middleware/retry"
	"github.com/milvus-io/milvus-sdk-go/v2/client"
	"github.com/milvus-io/milvus-sdk-go/v2/entity"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/liverag/liverag/internal/tlsfile"
	"github.com/liverag/liverag/vectordb"
)

// Config says where the server is and how to talk to it.
type Config struct {
	// Address is HOST:PORT.
	Address string
	// TLS says how to encrypt, and whom to trust.
	TLS TLS
	// User and Password log in, or Token does. Default: no login.
	User, Password string
	Token          string
	// Database is the server's database. Default: its default one.
	Database string
	// Corpus is part of the collections' names: liverag_<corpus>_<generation>. Several corpora may share a server.
	Corpus string
	// Logger hears of trouble that is dealt with. Default: none.
	Logger *slog.Logger
	// Timeouts bound every call to the server.
	Timeouts Timeouts
	// RequestBytes is how much one write request carries. Servers refuse requests above 64 MiB; one that refuses less gets half. Default 8 MiB.
	RequestBytes int
	// StatsFor is how old what was counted may be: an answer of Stats, and the statistics of the lexical leg. Default: twenty times as long as counting took, at
	// least a second, a minute at most.
	StatsFor time.Duration
	// TombstoneRetention is how long Sweep leaves a delete remembered, so that an older version that arrives late stays away. Default 7 days.
	TombstoneRetention time.Duration
}

// TLS says how to encrypt the connection.
type TLS struct {
	// Enable switches it on.
	Enable bool
	// CAFile is a PEM file of the authorities that may sign the server's certificate. Default: the system's.
	CAFile string
	// CertFile and KeyFile are PEM files of the client's own certificate. Default: none is shown.
	CertFile, KeyFile string
	// ServerName is what the server's certificate must be for. Default: the host of the address.
	ServerName string
}

// Timeouts are the longest that calls may take. A shorter deadline of the caller's context holds too.
type Timeouts struct {
	// Dial is the first connection. Default 5s.
	Dial time.Duration
	// Read is one look-up or search. Default 5s.
	Read time.Duration
	// Write is one write request. Default 20s.
	Write time.Duration
	// Catalog is making, describing or dropping a collection. Default 30s.
	Catalog time.Duration
	// Load is how long to wait, and to try again, while a collection is not in the server's memory, as after a restart. Default 120s.
	Load time.Duration
	// Settle is how long after a collection was not in the server's memory nothing that is read from it is believed. Default 5s.
	Settle time.Duration
}

func (c *Config) defaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	for _, t := range []struct {
		set *time.Duration
		to  time.Duration
	}{
		{&c.Timeouts.Dial, 5 * time.Second}, {&c.Timeouts.Read, 5 * time.Second}, {&c.Timeouts.Write, 20 * time.Second},
		{&c.Timeouts.Catalog, 30 * time.Second}, {&c.Timeouts.Load, 120 * time.Second}, {&c.Timeouts.Settle, 5 * time.Second}, {&c.TombstoneRetention, 7 * 24 * time.Hour},
	} {
		if *t.set <= 0 {
			*t.set = t.to
		}
	}
	if c.RequestBytes <= 0 {
		c.RequestBytes = 8 << 20
	}
}

func (t *TLS) config() (*tls.Config, error) {
	return tlsfile.Files{CA: t.CAFile, Cert: t.CertFile, Key: t.KeyFile, ServerName: t.ServerName}.Config("milvus")
}

// Store is the generations of one corpus on a Milvus server. It implements vectordb.Store and vectordb.Delayed; all methods are safe for concurrent use,
// and any number of processes may use the same generations.
type Store struct {
	config Config
	client client.Client
	server Server

	mu          sync.Mutex
	closed      bool
	generations map[string]*generation
	loading     map[string]*loading
}

var (
	_ vectordb.Store   = (*Store)(nil)
	_ vectordb.Delayed = (*Store)(nil)
)

// Open connects to the server and asks what it can do. It does not wait for a server that is down: the error says so, and opening may be tried again.
func Open(ctx context.Context, config Config) (*Store, error) {
	config.defaults()
	if _, _, err := net.SplitHostPort(config.Address); err != nil {
		return nil, fmt.Errorf("open milvus: the address is %q, it must be HOST:PORT", config.Address)
	}
	if err := checkCorpus(config.Corpus); err != nil {
		return nil, fmt.Errorf("open milvus at %s: %w", config.Address, err)
	}
	options := []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: config.Timeouts.Dial,
		}),
		// A connection that something between has forgotten carries nothing and never breaks: without an answer to a ping another one is made. Pings go out during calls
		// only: servers in Python take more of them for an attack and close the connection.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 10 * time.Second}),
		// The SDK would send what was refused as too large six more times, and what meets a dead server for 22 s.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30), grpc_retry.Disable()),
	}
	if config.TLS.Enable {
		t, err := config.TLS.config()
		if err != nil {
			return nil, fmt.Errorf("open milvus at %s: %w", config.Address, err)
		}
		options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(t)))
	}
	s := &Store{config: config, generations: map[string]*generation{}, loading: map[string]*loading{}}
	dial, cancel := context.WithTimeout(ctx, config.Timeouts.Dial)
	defer cancel()
	var err error
	s.client, err = client.NewClient(dial, client.Config{
		Address: config.Address, Username: config.User, Password: config.Password, APIKey: config.Token, DBName: config.Database,
		EnableTLSAuth: config.TLS.Enable, DialOptions: options, RetryRateLimit: &client.RetryRateLimitOption{},
	})
	if err != nil {
		return nil, fmt.Errorf("open milvus at %s: %w", config.Address, explain(err))
	}
	if err := s.probe(ctx); err != nil {
		_ = s.client.Close()
		return nil, fmt.Errorf("open milvus at %s: %w", config.Address, explain(err))
	}
	return s, nil
}

// Close implements vectordb.Store. Nothing is lost by closing: what was acknowledged is durable at the server.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.generations = nil
	if err := s.client.Close(); err != nil {
		return fmt.Errorf("close milvus: %w", err)
	}
	return nil
}

// Sync implements vectordb.Writer: what Milvus acknowledges is in its write-ahead log already, so this only tells whether the generation is there.
func (s *Store) Sync(ctx context.Context, generation string) error {
	g, err := s.generation(ctx, generation)
	if err != nil {
		return err
	}
	_, err = call(ctx, s, g, "look for", s.config.Timeouts.Catalog, func(ctx context.Context) (bool, error) {
		there, err := s.client.HasCollection(ctx, g.collection)
		if err == nil && !there {
			err = errNoCollection
		}
		return there, err
	})
	return err
}

// Checkpoint implements vectordb.Reader. Positions are left to consumer groups: it is always empty.
func (s *Store) Checkpoint(ctx context.Context, generation string) (map[int32]int64, error) {
	if _, err := s.generation(ctx, generation); err != nil {
		return nil, err
	}
	return map[int32]int64{}, nil
}

// generation finds one: among those in use, else at the server. It is in the server's memory, or on its way, when it comes back.
func (s *Store) generation(ctx context.Context, name string) (*generation, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	g, closed := s.generations[name], s.closed
	s.mu.Unlock()
	switch {
	case closed:
		return nil, vectordb.ErrClosed
	case g != nil:
		return g, nil
	case vectordb.CheckName(name) != nil:
		return nil, fmt.Errorf("generation %s: %w", name, vectordb.ErrNoGeneration)
	}
	return s.attach(ctx, name)
}

// adopt keeps a generation, unless another call was faster: then that one is kept.
func (s *Store) adopt(g *generation) (*generation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, vectordb.ErrClosed
	}
	if old := s.generations[g.about.Name]; old != nil && old.id == g.id && old.about == g.about {
		return old, nil
	}
	s.generations[g.about.Name] = g
	return g, nil
}

// forget drops what is known of a collection that is gone.
func (s *Store) forget(g *generation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.generations[g.about.Name] == g {
		delete(s.generations, g.about.Name)
	}
}

func (s *Store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// generation is a collection in use.
type generation struct {
	about      vectordb.Generation
	collection string
	id         int64
	sparse     bool // it has the field of the lexical leg

	// writing serialises Apply: what it decides upon is what the one before it wrote.
	writing sync.Mutex

	mu sync.Mutex
	// recent are the documents this process wrote a short while ago: a read may not see them yet.
	recent map[string]*recently
	// known is what reads have lately found of documents, nil for those that are not there: a pipeline reads before it writes.
	known map[string]*known
	// writes counts Applies that wrote something.
	writes int64

	// shaken is when a call last met a server that had lost the collection from its memory, or was not there.
	shaken moment
	// unloaded is when a call last met a server that did not have the collection in its memory.
	unloaded moment

	// headless are revisions of which rows were found and, when the newest state was asked for, no head.
	headless map[headless]time.Time

	stats   cachedStats
	window  keyWindow
	lexical map[string]*lexicalStats // by tenant
}

// recently is a document's newest revision that this process has written.
type recently struct {
	head head
	at   time.Time
	// unseen: no Visible has passed over it yet.
	unseen bool
	write  int64
}

// recentFor is how long a write is remembered: longer than the 5 s by which the server may let a bounded read lag.
const recentFor = 15 * time.Second

// remember keeps what was just acknowledged.
func (g *generation) remember(heads []head, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writes++
	for _, h := range heads {
		if old := g.recent[h.doc]; old == nil || old.head.stamp.less(h.stamp) {
			g.recent[h.doc] = &recently{head: h, at: now, unseen: true, write: g.writes}
		}
	}
}

// known is what a read found of a document.
type known struct {
	heads []head
	at    time.Time
}

const (
	// knownFor is how long what was read of a document serves a write. Another writer's revision that came meanwhile is met by Visible.
	knownFor = 30 * time.Second
	// knownAtMost bounds how many documents are kept so.
	knownAtMost = 20_000
)

// learn keeps what was read of documents for the write that may follow.
func (g *generation) learn(docs []string, states map[string]*state) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if len(g.known)+len(docs) > knownAtMost {
		maps.DeleteFunc(g.known, func(_ string, k *known) bool { return now.Sub(k.at) > knownFor })
		if len(g.known)+len(docs) > knownAtMost {
			clear(g.known)
		}
	}
	for _, doc := range docs {
		k := &known{at: now}
		if s := states[doc]; s != nil {
			k.heads = s.heads
		}
		g.known[doc] = k
	}
}

// take puts what is known of documents into states, once, and returns the documents of which nothing is.
func (g *generation) take(docs []string, states map[string]*state) (unknown []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	for _, doc := range docs {
		k := g.known[doc]
		delete(g.known, doc)
		if k == nil || now.Sub(k.at) > knownFor {
			unknown = append(unknown, doc)
			continue
		}
		for _, h := range k.heads {
			put(states, h)
		}
	}
	return unknown
}

// recall adds what this process wrote to what was read.
func (g *generation) recall(docs []string, states map[string]*state) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, doc := range docs {
		if r := g.recent[doc]; r != nil {
			put(states, r.head)
		}
	}
}

// expire forgets what every read sees by now.
func (g *generation) expire(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.recent, func(_ string, r *recently) bool { return now.Sub(r.at) > recentFor && !r.unseen })
}

// unseen returns the documents that no Visible has passed over.
func (g *generation) unseen() (docs []string, upTo int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for doc, r := range g.recent {
		if r.unseen {
			docs = append(docs, doc)
		}
	}
	slices.Sort(docs)
	return docs, g.writes
}

// seen marks what was written up to then.
func (g *generation) seen(docs []string, upTo int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, doc := range docs {
		if r := g.recent[doc]; r != nil && r.write <= upTo {
			r.unseen = false
		}
	}
}

// shakenFor is how long reads ask for the newest state after a call met a server that was not ready: longer than the 5 s by which it may let a bounded read lag. One that
// has just loaded a collection may know of removals before it knows of what was written before them; or it has yet to read its log to where another had come.
const shakenFor = 10 * time.Second

// moment is when something last happened, by the clock that does not jump: set back, another one would make reads wait for as long as it was set back. The zero value is never.
type moment struct{ at atomic.Pointer[time.Time] }

func (m *moment) set(at time.Time) { m.at.Store(&at) }

// ago is how long it is since then.
func (m *moment) ago() time.Duration {
	if at := m.at.Load(); at != nil {
		return time.Since(*at)
	}
	return math.MaxInt64
}

// shake notes that the server was not ready.
func (g *generation) shake() { g.shaken.set(time.Now()) }

// unload notes that the collection was not in the server's memory.
func (g *generation) unload() { g.unloaded.set(time.Now()) }

// unsettled is how long it takes until what is read of the collection can be believed. A server that has just loaded one may answer without rows that it holds, for seconds, also a
// read that asks for its newest state; an answer without them would be wrong, where one that waits is only late.
func (g *generation) unsettled(settle time.Duration) time.Duration {
	return settle - g.unloaded.ago()
}

// level is the consistency that a read needs where a bounded one is enough of a server that has been ready for a while.
func (g *generation) level(wanted entity.ConsistencyLevel) entity.ConsistencyLevel {
	if wanted == entity.ClBounded && g.shaken.ago() < shakenFor {
		return entity.ClStrong
	}
	return wanted
}

// headless is a revision without a head.
type headless struct {
	doc   string
	stamp stamp
}

// doubtFor is how long a revision without a head is taken for one that is not committed.
const doubtFor = 30 * time.Second

func (g *generation) doubt(revisions map[string]map[stamp]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(g.headless, func(_ headless, at time.Time) bool { return now.Sub(at) > doubtFor })
	for doc, stamps := range revisions {
		for at := range stamps {
			g.headless[headless{doc, at}] = now
		}
	}
}

func (g *generation) doubted(doc string, at stamp) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	since, ok := g.headless[headless{doc, at}]
	return ok && time.Since(since) < doubtFor
}

// invalidf is an ErrInvalid whose message is a whole sentence.
func invalidf(format string, args ...any) error {
	return &invalidError{fmt.Sprintf(format, args...)}
}

type invalidError struct{ message string }

func (e *invalidError) Error() string { return e.message }
func (e *invalidError) Unwrap() error { return vectordb.ErrInvalid }

var errNoCollection = errors.New("collection not found")
