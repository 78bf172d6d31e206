package ledger

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/liverag/liverag/internal/dirlock"
)

// file is the account on disk: a line that names the format, then lines of a checksum and a row in JSON. A row is written with what it has come to, not with what was added to it,
// and the last line of a row counts. So what changed in a second is a few lines at the end, however long the account is; a line that is torn or damaged costs that second of
// that row, and nothing once the row is written again. A file that was written anew every second would be 400 days' worth each time.
//
// The file is written anew, beside the old one, once most of its lines have been overtaken.
type file struct {
	mu      sync.Mutex // held while writing
	path    string     // empty: nothing is kept
	lock    *os.File
	out     *os.File
	size    int64
	kept    int64 // size when it was written anew last
	torn    bool  // the last write failed, maybe in the middle of a line
	closed  bool
	warned  time.Time
	because string // why nothing is written while this process lives; empty: it is

	// Guarded by the ledger's mu.
	stale   bool   // lines have to be taken out
	failing string // why nothing could be written the last time; empty: it could
}

const (
	format = "liverag spending 1"
	// rewriteAbove is how long the file may be, however little of it counts.
	rewriteAbove = 256 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// saved is a row as it is written.
type saved struct {
	row
	Figures
}

func encode(out *bytes.Buffer, r row, f Figures) {
	b, err := json.Marshal(saved{r, f})
	if err != nil {
		panic(err) // strings and numbers only
	}
	fmt.Fprintf(out, "%08x %s\n", crc32.Checksum(b, castagnoli), b)
}

func decode(line []byte) (r row, f Figures, err error) {
	sum, body, _ := bytes.Cut(line, []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || uint32(want) != crc32.Checksum(body, castagnoli) {
		return r, f, errors.New("it is damaged")
	}
	var s saved
	if err := json.Unmarshal(body, &s); err != nil {
		return r, f, err
	}
	if s.Day != "" {
		if _, err := time.Parse(time.DateOnly, string(s.Day)); err != nil {
			return r, f, err
		}
	}
	return s.row, s.Figures, nil
}

// open reads what is there, and makes ready to write.
func (f *file) open(l *Ledger) {
	dir, logger := l.config.Dir, l.config.Logger
	if dir == "" {
		f.because = "it is kept in memory"
		return
	}
	f.path = filepath.Join(dir, "account.ndjson")
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		f.lock, err = dirlock.Take(filepath.Join(dir, "lock"))
	}
	if err != nil {
		f.because = fmt.Sprintf("%s %v", dir, err)
		logger.Warn("what embedding costs is counted in memory only, and a daily cap holds for this process alone", "directory", dir, "error", err)
	}
	damaged, newer, err := f.read(l)
	switch {
	case newer != "":
		f.because = fmt.Sprintf("%s is of a newer liverag (%s)", f.path, newer)
		logger.Warn("the account of what embedding cost was written by a newer liverag; it is left as it is, and figures are kept in memory: start that one, or move the file away", "file", f.path, "format", newer)
	case err != nil: // it may be readable again, and must not be replaced by less
		f.because = fmt.Sprintf("%s can't be read: %v", f.path, err)
		logger.Warn("the account of what embedding cost can't be read as a whole; it is left as it is, and figures are kept in memory: put it right, or move it away, and restart", "file", f.path, "error", err)
	case damaged > 0:
		logger.Warn("lines of the account of what embedding cost are damaged; they are left out", "file", f.path, "lines", damaged, "read", len(l.rows))
	}
	f.stale = damaged > 0
}

// read adds the rows of the file.
func (f *file) read(l *Ledger) (damaged int, newer string, err error) {
	in, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", err
	}
	defer in.Close()
	lines := bufio.NewReaderSize(in, 64<<10)
	for first := true; ; first = false {
		line, err := lines.ReadBytes('\n')
		f.size += int64(len(line))
		text := bytes.TrimSuffix(line, []byte("\n"))
		version, header := strings.CutPrefix(string(text), "liverag spending ")
		number, _ := strconv.Atoi(version)
		switch {
		case len(text) == 0:
		case header && number > 1:
			return 0, version, nil
		case string(text) == format:
		default:
			r, figures, err := decode(text)
			if err != nil {
				damaged++
			} else {
				l.rows[r] = figures
			}
		}
		if first && !bytes.Equal(text, []byte(format)) && len(line) > 0 {
			f.torn = true // whatever it was, it is written anew
		}
		if err == io.EOF {
			f.torn = f.torn || len(text) == len(line) && len(line) > 0
			return damaged, "", nil
		}
		if err != nil {
			return damaged, "", err
		}
	}
}

// flush writes what has changed. What can't be written is tried again the next time.
func (f *file) flush(l *Ledger) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.because != "" || f.closed {
		return
	}
	l.mu.Lock()
	changed := l.changed
	if len(changed) == 0 && !f.stale {
		l.mu.Unlock()
		return
	}
	l.changed = map[row]bool{}
	anew := f.stale || f.torn || f.size == 0
	var out bytes.Buffer
	if !anew {
		for r := range changed {
			encode(&out, r, l.rows[r])
		}
		size := f.size + int64(out.Len())
		anew = size > rewriteAbove && size > 2*f.kept
	}
	if anew {
		out.Reset()
		out.WriteString(format + "\n")
		for _, r := range l.sorted() {
			encode(&out, r, l.rows[r])
		}
		f.stale = false
	}
	l.mu.Unlock()
	err := f.write(out.Bytes(), anew)
	l.mu.Lock()
	if f.failing = ""; err == nil {
		l.mu.Unlock()
		return
	}
	f.failing = fmt.Sprintf("%s can't be written for now: %v", f.path, err)
	for r := range changed {
		if _, still := l.rows[r]; still {
			l.touch(r)
		}
	}
	f.stale = f.stale || anew
	l.mu.Unlock()
	if time.Since(f.warned) > time.Minute {
		f.warned = time.Now()
		l.config.Logger.Warn("what embedding costs can't be written down for now; it is counted all the same, and written when that is possible again", "file", f.path, "error", err)
	}
}

// write appends, or writes the file anew.
func (f *file) write(b []byte, anew bool) (err error) {
	if anew {
		if err := f.replace(b); err != nil {
			return err
		}
		f.size, f.kept, f.torn = int64(len(b)), int64(len(b)), false
		return nil
	}
	if f.out == nil {
		if f.out, err = os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
			return err
		}
	}
	n, err := f.out.Write(b)
	f.size += int64(n)
	if err == nil {
		err = f.out.Sync()
	}
	// After an error nobody knows what is on disk.
	f.torn = err != nil
	return err
}

// replace puts a new file in the place of the old one, which is whole until then.
func (f *file) replace(b []byte) error {
	f.letGo()
	fresh, err := os.OpenFile(f.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fresh.Write(b)
	if err == nil {
		err = fresh.Sync()
	}
	if err = errors.Join(err, fresh.Close()); err == nil {
		err = os.Rename(f.path+".new", f.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.path+".new"))
	}
	if dir, err := os.Open(filepath.Dir(f.path)); err == nil { // the rename is durable where directories can be synced
		_ = dir.Sync()
		_ = dir.Close()
	}
	return nil
}

func (f *file) letGo() {
	if f.out != nil {
		_ = f.out.Close() // synced when it was written
		f.out = nil
	}
}

func (f *file) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.letGo()
	f.closed = true
	if f.lock == nil {
		return nil
	}
	err := f.lock.Close()
	f.lock = nil
	return err
}
