package kafka

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/liverag/liverag/internal/dirlock"
	"github.com/liverag/liverag/internal/diskspace"
	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// EmbeddedConfig says where the embedded log lives. Only Dir is required.
type EmbeddedConfig struct {
	// Dir holds the log; it is created if absent, and locked while the log is open.
	Dir string
	// MaxBytes is the size on disk from which writes are refused. Default: 1 GiB.
	MaxBytes int64
	// Listen is a loopback address HOST:PORT on which other programs reach the log with Kafka's protocol. They must not delete topics or records: that looks like damage at
	// the next start. Default: none.
	Listen string
	// Index is the directory of the index that is made of the log. While it is there, a log that lacks records which were acknowledged is refused: the index may know of them, and
	// what is written next would take their places. Without it the log goes on with what is left, and says what is lost. Default: none is ever away, so such a log is refused.
	Index string
	// Logger tells of compactions and of what the broker warns of. Default: slog.Default().
	Logger *slog.Logger

	// free tells how many bytes the disk that holds a directory has left. Default: diskspace.Free.
	free func(dir string) (uint64, error)
	// readOnly tells whether the disk that holds a directory can't be written. Default: diskspace.ReadOnly.
	readOnly func(dir string) bool
}

// Embedded is a single-node broker in this process that keeps its records in a directory and syncs every write.
//
// Nothing is lost by a crash after it was acknowledged; what was written and not acknowledged may be there twice. It has
// no replicas: whoever needs the log to survive its disk runs Kafka.
type Embedded struct {
	cfg      EmbeddedConfig
	cluster  *kfake.Cluster
	listener *listener
	lock     *os.File
	format   format
	witness  *witness
	durable  *durable

	settling  sync.Mutex
	testimony *testimony

	mu    sync.Mutex
	size  int64 // at the last look
	added int64 // since then, an estimate

	closeOnce sync.Once
}

// format is the marker file of an embedded log's directory.
type format struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	// Compacted is the log's size after its last compaction.
	Compacted int64 `json:"compacted_bytes"`
	// CompactNext was asked for.
	CompactNext bool `json:"compact_next,omitempty"`
}

const (
	clusterID = "liverag"

	formatName    = "liverag embedded log"
	formatVersion = 1

	// A log this small is not worth compacting at start; one larger than the second figure would hold the start up too long,
	// and is compacted only when it is full.
	compactAbove = 32 << 20
	compactBelow = 200 << 20

	// lookEvery is after how many written bytes the size on disk is looked at again.
	lookEvery = 8 << 20

	// spareDisk is how much of the disk the log leaves free, and spareForFrees how much when what is written may help, as deletions do. The broker's own
	// writes must never fail half-way: it ignores a failed fsync, and what it writes beside a batch is not taken back with it.
	spareDisk     = 16 << 20
	spareForFrees = 4 << 20
)

// OpenEmbedded starts the broker. It fails when another process has the directory, and when the directory's format is not
// the one it knows.
func OpenEmbedded(cfg EmbeddedConfig) (_ *Embedded, err error) {
	cfg.Logger = logger(cfg.Logger)
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = 1 << 30
	}
	if cfg.free == nil {
		cfg.free = diskspace.Free
	}
	if cfg.readOnly == nil {
		cfg.readOnly = diskspace.ReadOnly
	}
	if cfg.Dir == "" {
		return nil, errors.New("embedded log: no directory given: set --data")
	}
	if cfg.Listen != "" {
		host, _, err := net.SplitHostPort(cfg.Listen)
		if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, fmt.Errorf("embedded log: %q is no loopback address HOST:PORT; it has no authentication, so it listens nowhere else", cfg.Listen)
		}
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("embedded log: %w", err)
	}
	e := &Embedded{cfg: cfg}
	e.durable = &durable{logDir: e.logDir(), partitions: map[string]*syncedPartition{}}
	if e.lock, err = dirlock.Take(filepath.Join(cfg.Dir, "lock")); err != nil {
		return nil, fmt.Errorf("embedded log: directory %s: %w", cfg.Dir, err)
	}
	defer func() {
		if err != nil {
			e.lock.Close()
		}
	}()
	testimony, err := readTestimony(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("embedded log: %w", err)
	}
	if err := e.readFormat(testimony); err != nil {
		return nil, err
	}
	if err := e.recover(); err != nil {
		return nil, fmt.Errorf("embedded log: %w", err)
	}
	if err := e.examine(testimony); err != nil {
		return nil, fmt.Errorf("embedded log: %w", err)
	}
	if e.size, err = sizeOf(e.logDir()); err != nil {
		return nil, fmt.Errorf("embedded log: %w", err)
	}
	if e.worthCompacting() {
		if err := e.compact(); err != nil {
			// A log that is larger than it could be is one that works.
			cfg.Logger.Warn("the embedded log can't be compacted now; the next start tries again", "error", err)
			if err := e.recover(); err != nil {
				return nil, fmt.Errorf("embedded log: %w", err)
			}
			if testimony, err = readTestimony(cfg.Dir); err == nil { // the new log may be in its place nevertheless
				err = e.examine(testimony)
			}
			if err != nil {
				return nil, fmt.Errorf("embedded log: %w", err)
			}
			if e.size, err = sizeOf(e.logDir()); err != nil {
				return nil, fmt.Errorf("embedded log: %w", err)
			}
		}
	}
	if e.listener, err = listen(cfg.Listen); err != nil {
		return nil, fmt.Errorf("embedded log: %w", err)
	}
	if e.cluster, err = start(e.logDir(), e.listener, cfg.Logger); err != nil {
		e.listener.Close()
		return nil, fmt.Errorf("embedded log: %w", err)
	}
	if err := e.witness.open(); err != nil {
		e.cluster.Close()
		e.listener.Close()
		return nil, fmt.Errorf("embedded log: %w", err)
	}
	if cfg.Listen != "" {
		e.guard()
	}
	return e, nil
}

// examine holds the directory to what is known of it, and notes what is there.
func (e *Embedded) examine(t *testimony) error {
	if e.witness == nil {
		e.witness = &witness{dir: e.cfg.Dir, warn: e.cfg.Logger.Warn}
		e.witness.ends, e.witness.sequence = readEnds(e.cfg.Dir)
		if e.witness.ends == nil {
			e.witness.ends = map[string]int64{}
		}
	}
	accept := false
	if e.cfg.Index != "" {
		_, err := os.Stat(e.cfg.Index)
		accept = errors.Is(err, fs.ErrNotExist)
	}
	found, err := e.witness.examine(e.logDir(), t, accept)
	if errors.Is(err, ErrDamaged) && e.cfg.Index != "" {
		return fmt.Errorf("%w; restore %s and %s from one backup, or delete %s to go on with what is left: the index is then made of that, and what is lost has to be imported again",
			err, e.cfg.Dir, e.cfg.Index, e.cfg.Index)
	}
	if errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%w; restore %s from a backup, or choose another directory with --data, and import the documents again", err, e.cfg.Dir)
	}
	if err != nil {
		return err
	}
	e.testimony = found
	return writeTestimony(e.cfg.Dir, found)
}

// settle notes which topics there are.
func (e *Embedded) settle() error {
	e.settling.Lock()
	defer e.settling.Unlock()
	if err := e.witness.look(e.logDir(), e.testimony); err != nil {
		return err
	}
	return writeTestimony(e.cfg.Dir, e.testimony)
}

// worthCompacting tells whether the log grew to twice its compacted size, and is small enough not to hold the start up; or
// is nearly full and grew at all.
func (e *Embedded) worthCompacting() bool {
	base := e.format.Compacted
	return e.format.CompactNext || e.size > compactAbove && e.size < compactBelow && e.size > 2*base ||
		e.size > e.cfg.MaxBytes-e.cfg.MaxBytes/8 && e.size > base+base/8
}

func (e *Embedded) logDir() string { return filepath.Join(e.cfg.Dir, "log") }

// start runs a broker on a directory. Every write is synced.
func start(dir string, l *listener, log *slog.Logger) (*kfake.Cluster, error) {
	return kfake.NewCluster(append(brokerOptions(dir, l, log), kfake.SyncWrites())...)
}

func brokerOptions(dir string, l *listener, log *slog.Logger) []kfake.Opt {
	return []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ClusterID(clusterID),
		kfake.DataDir(dir),
		kfake.GroupMinSessionTimeout(100 * time.Millisecond),
		kfake.ListenFn(func(_, _ string) (net.Listener, error) { return l, nil }),
		kfake.WithLogger(brokerLogger{log}),
		kfake.BrokerConfigs(map[string]string{
			// The cleaner rewrites a log in place, so that a crash in the middle loses it, and it applies the default retention of
			// seven days to compacted topics too. It must never run by itself: see compact.
			"log.cleaner.backoff.ms": "3153600000000",
			"log.retention.ms":       "-1",
			"log.retention.bytes":    "-1",
		}),
	}
}

// Brokers are the addresses for Config.Brokers.
func (e *Embedded) Brokers() []string { return []string{e.listener.Addr().String()} }

// Dialer connects without a socket, whatever the address; it is for Config.Dialer.
func (e *Embedded) Dialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) { return e.listener.dial(ctx) }
}

// Size is the log's size on disk in bytes, and the size from which writes are refused.
func (e *Embedded) Size() (bytes, limit int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.size + e.added, e.cfg.MaxBytes
}

// Close stops the broker, saves its state and unlocks the directory.
func (e *Embedded) Close() (err error) {
	e.closeOnce.Do(func() {
		e.cluster.Close()
		e.listener.Close()
		e.settling.Lock()
		defer e.settling.Unlock()
		e.durable.close()
		err = errors.Join(e.witness.close(), e.witness.closed(e.logDir(), e.testimony), writeTestimony(e.cfg.Dir, e.testimony))
		e.lock.Close()
	})
	if err != nil {
		return fmt.Errorf("close embedded log: %w", err)
	}
	return nil
}

func (e *Embedded) readFormat(known *testimony) error {
	path := filepath.Join(e.cfg.Dir, "format.json")
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("embedded log: %w", err)
	}
	if known != nil && known.Format == formatVersion && (err != nil || !e.format.read(b)) {
		e.cfg.Logger.Warn("the marker of the embedded log was damaged, and is made anew", "file", path)
		// Whether a compaction was asked for is not known; one too many does no harm.
		e.format = format{Format: formatName, Version: formatVersion, CompactNext: true}
		return e.writeFormat()
	}
	if err != nil {
		if _, err := os.Stat(e.logDir()); err == nil {
			return fmt.Errorf("embedded log: %s is missing beside a log; restore it, or choose another directory with --data", path)
		}
		e.format = format{Format: formatName, Version: formatVersion}
		return e.writeFormat()
	}
	if !e.format.read(b) {
		return fmt.Errorf("embedded log: %s is not the marker of an embedded log; choose another directory with --data", path)
	}
	if e.format.Version != formatVersion {
		return fmt.Errorf("embedded log: directory %s has format version %d, this program knows version %d; use the program that wrote it to export its documents, and import them into a new directory",
			e.cfg.Dir, e.format.Version, formatVersion)
	}
	return nil
}

// read tells whether b is a marker of some version.
func (f *format) read(b []byte) bool {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	*f = format{}
	return d.Decode(f) == nil && f.Format == formatName
}

func (e *Embedded) writeFormat() error {
	b, err := json.Marshal(e.format)
	if err != nil {
		return fmt.Errorf("embedded log: %w", err)
	}
	if err := replaceFile(e.cfg.Dir, "format.json", append(b, '\n')); err != nil {
		return fmt.Errorf("embedded log: write format: %w", err)
	}
	return nil
}

// admit refuses records that would grow the log over its limit, or fill the disk. Deletions, access changes, dead letters and control records
// may go a little further, so that there is a way out.
func (e *Embedded) admit(records []*kgo.Record) error {
	frees := true
	for _, r := range records {
		corpus := !strings.HasSuffix(r.Topic, ".dlq") && !strings.HasSuffix(r.Topic, ".control")
		frees = frees && (!corpus || r.Value == nil || strings.HasSuffix(string(r.Key), stream.AccessSuffix))
	}
	return e.room(bytesOf(records), frees)
}

// bytesOf is about what records take in the log.
func bytesOf(records []*kgo.Record) (n int64) {
	for _, r := range records {
		n += int64(len(r.Key)+len(r.Value)) + 100
		for _, h := range r.Headers {
			n += int64(len(h.Key) + len(h.Value))
		}
	}
	return n
}

// room refuses n more bytes if there is no room for them, and counts them if there is.
func (e *Embedded) room(n int64, frees bool) error {
	limit, spare := e.cfg.MaxBytes, int64(spareDisk)
	if frees {
		limit, spare = limit+limit/16+1<<20, spareForFrees
	}
	if err := e.writable(); err != nil {
		return err
	}
	if err := e.diskRoom(n + spare); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.size+e.added+n > limit || e.added > lookEvery {
		// The estimate ignores compression: look before refusing.
		if size, err := sizeOf(e.logDir()); err == nil {
			e.size, e.added = size, 0
		}
	}
	if e.size+e.added+n > limit {
		return e.full(e.size + e.added)
	}
	e.added += n
	return nil
}

// diskRoom refuses if the disk has less than n bytes left. A disk that does not tell is believed to have them.
func (e *Embedded) diskRoom(n int64) error {
	free, err := e.cfg.free(e.cfg.Dir)
	if err != nil || free >= uint64(n) {
		return nil
	}
	return fmt.Errorf("%w: %d bytes are left on the one that holds %s, and %d are wanted: make room there; writes go on by themselves", stream.ErrDiskFull, free, e.cfg.Dir, n)
}

// writable refuses if the disk is mounted read-only, as it is after errors too, or failed to keep what was written.
func (e *Embedded) writable() error {
	if err := e.durable.check(); err != nil {
		return err
	}
	if !e.cfg.readOnly(e.cfg.Dir) {
		return nil
	}
	return fmt.Errorf("%w: the disk that holds %s is mounted read-only: mount it writable; writes go on by themselves", stream.ErrReadOnly, e.cfg.Dir)
}

// tryWriting makes a file in a directory and takes it away.
func tryWriting(dir string) error {
	f, err := os.CreateTemp(dir, "try-*.tmp")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// refused explains why the broker did not take n bytes.
func (e *Embedded) refused(err error, n int64) error {
	switch {
	case errors.Is(err, kerr.PolicyViolation): // see guard
		if err := e.writable(); err != nil {
			return err
		}
		if full := e.diskRoom(n + spareDisk); full != nil {
			return full
		}
		size, _ := e.Size()
		return e.full(size)
	case errors.Is(err, kerr.UnknownServerError): // it could not write
		if full := e.diskRoom(n + spareForFrees); full != nil {
			return full
		}
		if err := e.writable(); err != nil {
			return err
		}
		if err := tryWriting(e.logDir()); errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
			return fmt.Errorf("%w: %w: let this user write it; writes go on by themselves", stream.ErrReadOnly, err)
		}
		return fmt.Errorf("%w: it can't be written in %s; the log line before this one says why", stream.ErrUnavailable, e.cfg.Dir)
	}
	return nil
}

func (e *Embedded) full(size int64) error {
	limit := e.cfg.MaxBytes
	return fmt.Errorf("%w: %d of %d bytes in %s: raise log.max_bytes, or delete documents and restart, which compacts the log; deletions are still accepted", stream.ErrLogFull, size, limit, e.cfg.Dir)
}

// sizeOf adds the sizes of the files under dir; a dir that is absent has none.
func sizeOf(dir string) (int64, error) {
	var n int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.Type().IsRegular():
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			n += info.Size()
		}
		return nil
	})
	return n, err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// compact rewrites the log without what later records replaced. The broker's compaction deletes a partition's files before
// it writes them anew, so it works on a copy, which then takes the log's place.
func (e *Embedded) compact() error {
	began, before := time.Now(), e.size
	if err := e.diskRoom(2*e.size + spareDisk); err != nil { // it is copied, and the copy rewritten
		return err
	}
	work := filepath.Join(e.cfg.Dir, "log.compact")
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	if err := os.CopyFS(work, os.DirFS(e.logDir())); err != nil {
		return err
	}
	l, err := listen("")
	if err != nil {
		return err
	}
	cluster, err := start(work, l, e.cfg.Logger)
	if err != nil {
		return err
	}
	if e.format.CompactNext {
		err = e.seal(l)
	}
	if err == nil {
		cluster.Compact()
	}
	cluster.Close()
	l.Close()
	if err != nil {
		return err
	}
	if e.size, err = sizeOf(work); err != nil {
		return err
	}
	// The size goes first: when the rest fails, the log is merely compacted later than it could be.
	e.format.Compacted = e.size
	if err := e.writeFormat(); err != nil {
		return err
	}
	// What is known of the old files does not hold for the new ones; of these, all is known again when they are in place.
	if err := os.Remove(filepath.Join(e.cfg.Dir, witnessName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := e.swap(work); err != nil {
		return err
	}
	if err := e.examine(nil); err != nil {
		return err
	}
	if e.format.CompactNext { // only now it is done
		e.format.CompactNext = false
		if err := e.writeFormat(); err != nil {
			return err
		}
	}
	e.cfg.Logger.Info("embedded log compacted", "before", before, "after", e.size, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// seal puts an aborted transaction behind the records of every partition of a log that is to be compacted. Compaction leaves a partition's last batch alone and does not look at
// it, so a delete that came last would remove nothing. What an aborted transaction wrote is read by nobody.
func (e *Embedded) seal(l *listener) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(l.Addr().String()), kgo.Dialer(func(ctx context.Context, _, _ string) (net.Conn, error) { return l.dial(ctx) }),
		kgo.TransactionalID("liverag-compaction"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer client.Close()
	topics, err := kadm.NewClient(client).ListTopics(ctx)
	if err != nil {
		return err
	}
	if err := client.BeginTransaction(); err != nil {
		return err
	}
	var records []*kgo.Record
	for _, topic := range topics.Sorted() {
		if strings.HasSuffix(topic.Topic, ".dlq") || strings.HasSuffix(topic.Topic, ".control") || strings.HasSuffix(topic.Topic, ".feedback") || topic.IsInternal {
			continue
		}
		for partition := range topic.Partitions {
			records = append(records, &kgo.Record{Topic: topic.Topic, Partition: partition, Key: []byte("seal")})
		}
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return err
	}
	return client.EndTransaction(ctx, kgo.TryAbort)
}

// compactNext notes that the next start is to compact.
func (e *Embedded) compactNext() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.format.CompactNext = true
	return e.writeFormat()
}

// swap puts a finished copy in the log's place. recover finishes what a crash interrupts.
func (e *Embedded) swap(work string) error {
	if err := syncTree(work); err != nil {
		return err
	}
	old := filepath.Join(e.cfg.Dir, "log.old")
	if err := os.Rename(e.logDir(), old); err != nil {
		return err
	}
	if err := os.Rename(work, e.logDir()); err != nil {
		return err
	}
	if err := syncDir(e.cfg.Dir); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

// recover puts the directory in order after a crash during a compaction.
func (e *Embedded) recover() error {
	old := filepath.Join(e.cfg.Dir, "log.old")
	if _, err := os.Stat(e.logDir()); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(old, e.logDir()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return errors.Join(os.RemoveAll(old), os.RemoveAll(filepath.Join(e.cfg.Dir, "log.compact")))
}

func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

// brokerLogger passes on what the broker warns of.
type brokerLogger struct{ *slog.Logger }

func (l brokerLogger) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.Error("embedded log: " + fmt.Sprintf(format, args...))
	case kfake.LogLevelWarn:
		l.Warn("embedded log: " + fmt.Sprintf(format, args...))
	}
}
