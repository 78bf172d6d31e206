// Package querylog keeps questions in a bounded local file, where an operator has asked for it: so that generations can be compared on what is really asked.
//
// Of each question its text is kept, with the time, mode, k, filter, the generation that answered and the ids of the hits; texts of documents never are.
// Noting a question neither waits nor fails: what can't be written at once is dropped, and counted.
package querylog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/vectordb"
)

// Entry is a question as it is kept, a JSON object a line.
type Entry struct {
	Time  time.Time `json:"time"`
	Query string    `json:"query"`
	// Mode is the one that ran.
	Mode   retrieve.Mode   `json:"mode"`
	K      int             `json:"k"`
	Filter json.RawMessage `json:"filter,omitempty"`
	// Generation is the name of the one that answered.
	Generation string `json:"generation"`
	// Hits are ids of chunks, best first.
	Hits []string `json:"hits"`
	Took string   `json:"took"`
}

// Config says where questions are kept. Fields without a default are required.
type Config struct {
	// Path is the file. The one before it is kept beside it, with .1 at its end. Only its owner can read them.
	Path string
	// MaxBytes bounds both files together. Defaults to 64 MiB.
	MaxBytes int64
	// Queue is how many questions may wait to be written. Defaults to 1024.
	Queue int
	// Metrics, if set, gets liverag_query_log_written_total and liverag_query_log_dropped_total. Defaults to none.
	Metrics prometheus.Registerer
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

// noted is a question that waits. The filter is spelled later, off the question's own time.
type noted struct {
	entry  Entry
	filter *vectordb.Filter
}

// Log keeps questions. It is safe for concurrent use.
type Log struct {
	config  Config
	queue   chan noted
	file    *os.File
	size    int64
	warned  time.Time
	written prometheus.Counter
	dropped prometheus.Counter
}

// Open opens the file, so that a directory that can't be written is known before anybody asks. Nothing is written until Run.
func Open(config Config) (*Log, error) {
	if config.MaxBytes == 0 {
		config.MaxBytes = 64 << 20
	}
	if config.Queue == 0 {
		config.Queue = 1024
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	l := &Log{
		config: config, queue: make(chan noted, config.Queue),
		written: prometheus.NewCounter(prometheus.CounterOpts{Name: "liverag_query_log_written_total", Help: "Questions kept in the query log."}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "liverag_query_log_dropped_total", Help: "Questions that the query log could not keep; they were answered all the same."}),
	}
	if err := os.MkdirAll(filepath.Dir(config.Path), 0o700); err != nil {
		return nil, fmt.Errorf("query log: %w", err)
	}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("query log: %w", err)
	}
	if config.Metrics != nil {
		config.Metrics.MustRegister(l.written, l.dropped)
	}
	return l, nil
}

// open opens the file and ends a line that a crash has torn.
func (l *Log) open() error {
	f, err := os.OpenFile(l.config.Path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, info.Size()
	last := []byte{'\n'}
	if l.size > 0 {
		if _, err := f.ReadAt(last, l.size-1); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if last[0] != '\n' {
		n, err := f.Write([]byte{'\n'})
		l.size += int64(n)
		if err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return nil
}

// Note takes a question and its answer. It returns at once.
func (l *Log) Note(q retrieve.Request, a *retrieve.Answer) {
	n := noted{filter: q.Filter, entry: Entry{
		Time: time.Now().UTC(), Query: q.Query, Mode: a.Mode, K: q.K, Generation: a.Target.Name, Hits: make([]string, len(a.Hits)), Took: a.Took.Total.String(),
	}}
	for i := range a.Hits {
		n.entry.Hits[i] = a.Hits[i].ID
	}
	select {
	case l.queue <- n:
	default:
		l.dropped.Inc()
	}
}

// flushBytes is how much is written at once while questions wait.
const flushBytes = 64 << 10

// Run writes what is noted until ctx ends, then what waits still, and closes the file. Errors of writing are told in the log of the process.
func (l *Log) Run(ctx context.Context) error {
	defer func() {
		if l.file != nil {
			l.file.Close()
		}
	}()
	var buffer bytes.Buffer
	lines := 0
	for {
		select {
		case n := <-l.queue:
			lines += l.add(&buffer, n)
			if len(l.queue) > 0 && buffer.Len() < flushBytes {
				continue
			}
			l.flush(&buffer, lines)
			lines = 0
		case <-ctx.Done():
			for len(l.queue) > 0 {
				lines += l.add(&buffer, <-l.queue)
			}
			l.flush(&buffer, lines)
			return nil
		}
	}
}

// add encodes a question and returns how many lines that is.
func (l *Log) add(buffer *bytes.Buffer, n noted) int {
	if n.filter != nil {
		n.entry.Filter = json.RawMessage(n.filter.String())
	}
	encoder := json.NewEncoder(buffer)
	encoder.SetEscapeHTML(false)
	before := buffer.Len()
	if err := encoder.Encode(n.entry); err != nil {
		buffer.Truncate(before)
		l.lost(1, err)
		return 0
	}
	return 1
}

func (l *Log) flush(buffer *bytes.Buffer, lines int) {
	defer buffer.Reset()
	if lines == 0 {
		return
	}
	if err := l.write(buffer.Bytes()); err != nil {
		l.lost(lines, err)
		return
	}
	l.written.Add(float64(lines))
}

// lost counts questions that could not be kept, and says so once a minute.
func (l *Log) lost(n int, err error) {
	l.dropped.Add(float64(n))
	if time.Since(l.warned) > time.Minute {
		l.warned = time.Now()
		l.config.Logger.Warn("questions can't be kept; they are answered all the same", "file", l.config.Path, "error", err)
	}
}

func (l *Log) write(b []byte) error {
	if l.file != nil && l.size > 0 && l.size+int64(len(b)) > l.config.MaxBytes/2 {
		err := l.file.Close()
		l.file = nil
		if err := errors.Join(err, os.Rename(l.config.Path, l.config.Path+".1")); err != nil {
			return err
		}
	}
	if l.file == nil { // just rotated, or it failed before
		if err := l.open(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(b)
	l.size += int64(n)
	if err != nil { // what was torn is ended when it is opened again
		l.file.Close()
		l.file = nil
	}
	return err
}

// Read returns what is kept at a path and in the file before it, the oldest first. A line that is torn is passed over. Its error wraps fs.ErrNotExist if nothing was ever kept.
func Read(path string) ([]Entry, error) {
	var all []Entry
	found := false
	for _, name := range []string{path + ".1", path} {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read query log: %w", err)
		}
		found = true
		lines := bufio.NewReader(f)
		for {
			line, err := lines.ReadBytes('\n')
			var e Entry
			if json.Unmarshal(line, &e) == nil && e.Query != "" {
				all = append(all, e)
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return nil, errors.Join(fmt.Errorf("read query log: %w", err), f.Close())
			}
		}
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("read query log: %w", err)
		}
	}
	if !found {
		return nil, fmt.Errorf("read query log %s: %w", path, fs.ErrNotExist)
	}
	return all, nil
}
