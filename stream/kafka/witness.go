package kafka

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The broker believes what its directory holds: it cuts a partition's file off at the first batch that is damaged, and begins anew where its list of topics is missing.
// The witness is what it is held to before it starts.
//
//   - witness.json, replaced whole at each opening and closing: the list of topics, and of every file how much of it was there, with its checksum. Files of records only grow while
//     the broker runs, and what they grow by has no gaps.
//   - ends: how far each partition was acknowledged, written before the caller hears of it, and synced behind it. So after the end of the process it is exact, and
//     after a loss of power at most endsEvery behind.
//
// What is derived from the rest, or of no use to us, is removed or made anew if it is damaged. Each half of the witness can be done without, once.
type witness struct {
	dir  string // of the embedded log
	warn func(msg string, args ...any)

	mu       sync.Mutex
	ends     map[string]int64 // partition's directory to offset
	sequence uint64
	file     *os.File
	writing  int64 // the slot that is written
	safe     int64 // the slot that holds something synced
	dirty    chan struct{}
	stop     chan struct{}
	done     chan struct{}
	failed   error
}

const (
	witnessName    = "witness.json"
	witnessVersion = 1
	snapshotName   = "snapshot.json"
	endsName       = "ends"
	endsMagic      = "LVRENDS\x00"
	endsHeader     = 28
	endsSlot       = 64 << 10
	endsSlots      = 3
	endsEvery      = 100 * time.Millisecond
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged: the embedded log's directory lacks something that was acknowledged; the rest of the message says what, and what to do.
var ErrDamaged = errors.New("the log is damaged")

// testimony is what witness.json holds.
type testimony struct {
	Version    int                        `json:"version"`
	Format     int                        `json:"format"` // of the directory
	Topics     json.RawMessage            `json:"topics,omitempty"`
	Partitions map[string]partitionRecord `json:"partitions"`
}

type partitionRecord struct {
	End   int64                 `json:"end"`
	Files map[string]fileRecord `json:"files,omitempty"`
}

type fileRecord struct {
	Size int64  `json:"size"`
	CRC  uint32 `json:"crc32c"`
}

func recordOf(b []byte) fileRecord {
	return fileRecord{int64(len(b)), crc32.Checksum(b, castagnoli)}
}

// begins tells whether b begins with what was recorded.
func (r fileRecord) begins(b []byte) bool {
	return int64(len(b)) >= r.Size && crc32.Checksum(b[:r.Size], castagnoli) == r.CRC
}

// sealed is how witness.json looks on disk.
type sealed struct {
	CRC       uint32          `json:"crc32c"`
	Testimony json.RawMessage `json:"testimony"`
}

// readTestimony returns nil if there is none that can be trusted.
func readTestimony(dir string) (*testimony, error) {
	b, err := os.ReadFile(filepath.Join(dir, witnessName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s sealed
	t := &testimony{}
	if json.Unmarshal(b, &s) != nil || recordOf(s.Testimony).CRC != s.CRC || json.Unmarshal(s.Testimony, t) != nil {
		return nil, nil
	}
	if t.Version != witnessVersion {
		return nil, fmt.Errorf("%s has version %d, this program knows version %d: use the program that wrote it, or a newer one", filepath.Join(dir, witnessName), t.Version, witnessVersion)
	}
	return t, nil
}

func writeTestimony(dir string, t *testimony) error {
	payload, err := json.Marshal(t)
	if err != nil {
		return err
	}
	b, err := json.Marshal(sealed{recordOf(payload).CRC, payload})
	if err != nil {
		return err
	}
	return replaceFile(dir, witnessName, b)
}

// replaceFile puts a file in place durably and in one step.
func replaceFile(dir, name string, content []byte) error {
	path := filepath.Join(dir, name)
	f, err := os.Create(path + ".tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	return err
}

// readEnds returns nil if there are none that can be trusted.
func readEnds(dir string) (ends map[string]int64, sequence uint64) {
	b, err := os.ReadFile(filepath.Join(dir, endsName))
	if err != nil {
		return nil, 0
	}
	for at := 0; at < len(b); at += endsSlot {
		slot := b[at:min(at+endsSlot, len(b))]
		if len(slot) < endsHeader || string(slot[:8]) != endsMagic || binary.LittleEndian.Uint32(slot[8:]) != witnessVersion {
			continue
		}
		seq, n := binary.LittleEndian.Uint64(slot[12:]), binary.LittleEndian.Uint32(slot[20:])
		if uint64(n) > uint64(len(slot)-endsHeader) || seq <= sequence {
			continue
		}
		payload := slot[endsHeader : endsHeader+n]
		if crc32.Update(crc32.Checksum(slot[:24], castagnoli), castagnoli, payload) != binary.LittleEndian.Uint32(slot[24:]) {
			continue
		}
		found := map[string]int64{}
		if json.Unmarshal(payload, &found) == nil {
			ends, sequence = found, seq
		}
	}
	return ends, sequence
}

// unneeded are the broker's files that we never fill: it has its settings from start, knows no users, and its producers live as long as the process.
var unneeded = []string{"acls.json", "sasl.json", "quotas.json", "broker_configs.json", "seq_windows.json", "session_state.json"}

// examine holds a log's directory to the witness before the broker reads it, and puts in order what can be. accept: what is lost is lost; make the best of the rest, and tell.
// It returns ErrDamaged if something that was acknowledged is not there, and else what is.
func (w *witness) examine(logDir string, t *testimony, accept bool) (*testimony, error) {
	found := &testimony{Version: witnessVersion, Format: formatVersion, Partitions: map[string]partitionRecord{}}
	if _, err := os.Stat(logDir); errors.Is(err, fs.ErrNotExist) {
		return found, w.missing(logDir, accept)
	}
	for _, name := range unneeded {
		if err := os.Remove(filepath.Join(logDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if err := w.examineTopics(logDir, t, accept); err != nil {
		return nil, err
	}
	dirs, err := os.ReadDir(filepath.Join(logDir, "partitions"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	names := map[string]bool{}
	for _, d := range dirs {
		if d.IsDir() {
			names[d.Name()] = true
		}
	}
	if t != nil {
		for name := range t.Partitions {
			names[name] = true
		}
	}
	for name := range w.ends {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		p := &examined{witness: w, dir: filepath.Join(logDir, "partitions", name), end: w.ends[name], accept: accept, found: map[string]fileRecord{}}
		if t != nil {
			record := t.Partitions[name]
			p.record = &record
		}
		if err := p.examine(); err != nil {
			return nil, err
		}
		w.ends[name] = p.next
		found.Partitions[name] = partitionRecord{End: p.next, Files: p.found}
	}
	return found, w.look(logDir, found)
}

// look takes the list of topics into a testimony.
func (w *witness) look(logDir string, t *testimony) (err error) {
	t.Topics, err = os.ReadFile(filepath.Join(logDir, "topics.json"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Topics, err = nil, nil
	}
	return err
}

// missing: the whole log is gone.
func (w *witness) missing(logDir string, accept bool) error {
	for name, end := range w.ends {
		if end > 0 && !accept {
			return fmt.Errorf("%w: %s is missing, and %s had %d records", ErrDamaged, logDir, name, end)
		}
		w.ends[name] = 0
	}
	return nil
}

// listed is what the broker's list of topics holds, as far as we look at it.
type listed struct {
	Version int `json:"version"`
	Topics  []struct {
		Name       string            `json:"name"`
		ID         json.RawMessage   `json:"id"`
		Partitions int               `json:"partitions"`
		Configs    map[string]string `json:"configs"`
	} `json:"topics"`
}

// examineTopics holds the list of topics to the copy of it. A list without a copy has to be readable.
func (w *witness) examineTopics(logDir string, t *testimony, accept bool) error {
	path := filepath.Join(logDir, "topics.json")
	var now, before listed
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	readable := err == nil && json.Unmarshal(b, &now) == nil
	if t != nil && json.Unmarshal(t.Topics, &before) == nil && !(readable && extends(now, before)) {
		w.warn("the embedded log's list of topics was damaged, and is put back", "file", path)
		if err := replaceFile(logDir, "topics.json", t.Topics); err != nil {
			return err
		}
		readable = true
	}
	partitions, _ := filepath.Glob(filepath.Join(logDir, "partitions", "*", "*.dat"))
	if !readable && len(partitions) > 0 && !accept {
		return fmt.Errorf("%w: %s can't be read", ErrDamaged, path)
	}
	// The broker takes a directory without this file for an empty one.
	meta := filepath.Join(logDir, "meta.json")
	var m struct {
		Version int    `json:"version"`
		ID      string `json:"cluster_id"`
	}
	if b, err := os.ReadFile(meta); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	} else if readable && (err != nil || json.Unmarshal(b, &m) != nil || m.Version != 1 || m.ID != clusterID) {
		w.warn("a file of the embedded log was damaged, and is made anew", "file", meta)
		return replaceFile(logDir, "meta.json", []byte(`{"version":1,"cluster_id":"`+clusterID+`"}`))
	}
	return nil
}

// extends tells whether a list holds all topics of an earlier one as they were.
func extends(now, before listed) bool {
	for _, old := range before.Topics {
		if !slices.ContainsFunc(now.Topics, func(n struct {
			Name       string            `json:"name"`
			ID         json.RawMessage   `json:"id"`
			Partitions int               `json:"partitions"`
			Configs    map[string]string `json:"configs"`
		}) bool {
			return n.Name == old.Name && string(n.ID) == string(old.ID) && n.Partitions >= old.Partitions && maps.Equal(n.Configs, old.Configs)
		}) {
			return false
		}
	}
	return now.Version == before.Version
}

// examined is a partition that is looked at.
type examined struct {
	*witness
	dir    string
	record *partitionRecord // nil: nothing is known
	end    int64            // acknowledged
	accept bool
	next   int64 // after the last intact batch
	found  map[string]fileRecord
}

// batch is the header of one.
type batchHeader struct {
	first, next   int64
	size          int
	transactional bool
	control       bool
}

const batchHeaderSize = 61

// readBatch reads the intact batch that b begins with.
func readBatch(b []byte) (h batchHeader, ok bool) {
	if len(b) < batchHeaderSize {
		return h, false
	}
	n := int64(int32(binary.BigEndian.Uint32(b[8:]))) + 12
	// The epoch, which the checksum does not cover, is that of the only broker there ever is.
	if n < batchHeaderSize || n > int64(len(b)) || binary.BigEndian.Uint32(b[12:]) != 0 || b[16] != 2 || crc32.Checksum(b[21:n], castagnoli) != binary.BigEndian.Uint32(b[17:]) {
		return h, false
	}
	attributes := binary.BigEndian.Uint16(b[21:])
	h.first = int64(binary.BigEndian.Uint64(b))
	h.next = h.first + int64(int32(binary.BigEndian.Uint32(b[23:]))) + 1
	h.size, h.transactional, h.control = int(n), attributes&0x10 != 0, attributes&0x20 != 0
	return h, h.first >= 0 && h.next > h.first
}

// segments lists a partition's files of records by their first offset.
func segments(dir string) ([]int64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var bases []int64
	for _, e := range entries {
		if number, ok := strings.CutSuffix(e.Name(), ".dat"); ok {
			if base, err := strconv.ParseInt(number, 10, 64); err == nil {
				bases = append(bases, base)
			}
		}
	}
	slices.Sort(bases)
	return bases, nil
}

func (p *examined) examine() error {
	bases, err := segments(p.dir)
	if err != nil {
		return err
	}
	if p.record != nil {
		for name := range p.record.Files {
			if base, err := strconv.ParseInt(strings.TrimSuffix(name, ".dat"), 10, 64); err == nil && strings.HasSuffix(name, ".dat") && !slices.Contains(bases, base) {
				if err := p.lost(filepath.Join(p.dir, name), "is missing"); err != nil {
					return err
				}
			}
		}
		p.next = p.record.End
		if p.accept {
			p.next = 0
		}
	}
	if err := p.examineSnapshot(); err != nil {
		return err
	}
	torn := ""                 // the file that ends in the middle of a batch, if one does
	cuts := map[string]int64{} // what is intact of files like that; nothing is cut off before it is known that nobody was told of it
	for _, base := range bases {
		name := strconv.FormatInt(base, 10) + ".dat"
		path := filepath.Join(p.dir, name)
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		at, first := 0, true
		var headers []batchHeader
		if known, ok := p.known(name); ok {
			if !known.begins(b) {
				if err := p.lost(path, "has changed in its first %d bytes", known.Size); err != nil {
					return err
				}
			}
			for !p.accept && at < int(known.Size) {
				h, ok := readBatch(b[at:])
				if !ok {
					return p.lost(path, "is damaged at byte %d", at) // and was so when it was recorded
				}
				headers = append(headers, h)
				at, first = at+h.size, false
			}
		}
		whole := true
		for at < len(b) {
			h, ok := readBatch(b[at:])
			// Without a record there may be gaps, because a log that was compacted has some.
			if ok && (p.record != nil && !p.accept && h.first != p.next || h.first < p.next || first && h.first != base) {
				ok = false
			}
			if !ok {
				whole = false
				break
			}
			if torn != "" {
				return p.lost(torn, "is damaged at its end, and %s follows", name) // never if accepted: then nothing is torn
			}
			headers, p.next = append(headers, h), h.next
			at, first = at+h.size, false
		}
		if !whole {
			if more := p.intactAfter(b[at+1:]); more {
				if err := p.lost(path, "is damaged at byte %d, and intact records follow", at); err != nil {
					return err
				}
				if b, err = p.salvage(path, b, &headers); err != nil {
					return err
				}
			} else {
				if !p.accept {
					torn = path
				}
				cuts[path], b = int64(at), b[:at]
			}
		}
		p.found[name] = recordOf(b)
		if err := p.examineIndex(strings.TrimSuffix(path, ".dat")+".idx", headers); err != nil {
			return err
		}
	}
	if p.next < p.end {
		if err := p.lost(cmp.Or(torn, p.dir), "ends at offset %d, and records up to %d were acknowledged", p.next, p.end); err != nil {
			return err
		}
	}
	for path, size := range cuts {
		if err := cut(path, size); err != nil {
			return err
		}
	}
	return nil
}

func (p *examined) known(name string) (fileRecord, bool) {
	if p.record == nil {
		return fileRecord{}, false
	}
	r, ok := p.record.Files[name]
	return r, ok
}

// lost returns ErrDamaged, or nil where the loss is accepted.
func (p *examined) lost(path, what string, args ...any) error {
	what = fmt.Sprintf(what, args...)
	if p.accept {
		p.warn("records of the embedded log are lost; what was written to it since its last backup has to be imported again", "file", path, "what", "it "+what)
		return nil
	}
	return fmt.Errorf("%w: %s %s", ErrDamaged, path, what)
}

// intactAfter tells whether a later batch of this partition is in b.
func (p *examined) intactAfter(b []byte) bool {
	for at := range b {
		if at+batchHeaderSize > len(b) {
			return false
		}
		if b[at+16] != 2 || binary.BigEndian.Uint32(b[at+12:]) != 0 {
			continue
		}
		if h, ok := readBatch(b[at:]); ok && h.first >= p.next {
			return true
		}
	}
	return false
}

// salvage writes a file anew with the batches that are intact, and keeps the damaged one beside it.
func (p *examined) salvage(path string, b []byte, headers *[]batchHeader) (kept []byte, err error) {
	if err := os.Rename(path, path+".damaged"); err != nil {
		return nil, err
	}
	*headers = nil
	base, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(path), ".dat"), 10, 64)
	if err != nil {
		return nil, err
	}
	p.next = base
	for at := 0; at+batchHeaderSize <= len(b); {
		if h, ok := readBatch(b[at:]); ok && h.first >= p.next {
			kept, *headers = append(kept, b[at:at+h.size]...), append(*headers, h)
			at, p.next = at+h.size, h.next
			continue
		}
		at++
	}
	return kept, replaceFile(filepath.Dir(path), filepath.Base(path), kept)
}

// cut removes what a loss of power left of batches that nobody was told of.
func cut(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

// indexEntry is the broker's size of an entry that goes with a batch.
const indexEntry = 15

// examineIndex makes a file's index anew if it does not fit: all that it adds to the records is which of them belong to a transaction.
func (p *examined) examineIndex(path string, headers []batchHeader) (err error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	known, ok := p.known(filepath.Base(path))
	from := 0
	if ok && known.begins(b) {
		from = int(known.Size / indexEntry) // a compaction decided about these
	} else if ok && slices.ContainsFunc(headers, func(h batchHeader) bool { return h.transactional }) {
		if err := p.lost(path, "is damaged"); err != nil {
			return err
		}
	} else if p.record == nil {
		// Nothing is known of it: what can be read is believed.
		if len(b) == indexEntry*len(headers) {
			from = len(headers)
		}
	}
	fits := len(b) == indexEntry*len(headers)
	defer func() {
		if now, e := os.ReadFile(path); e == nil && err == nil {
			p.found[filepath.Base(path)] = recordOf(now)
		}
	}()
	want := slices.Clone(b[:min(len(b), from*indexEntry)])
	for i := from; i < len(headers); i++ {
		var e [indexEntry]byte
		e[0] = 1
		if headers[i].transactional && !headers[i].control {
			e[14] = 1
		}
		if at := i * indexEntry; at+indexEntry <= len(b) {
			copy(e[6:14], b[at+6:at+14]) // a time, which is not read back
			e[1] = byte(crc32.Checksum(e[2:], castagnoli))
			fits = fits && string(e[:]) == string(b[at:at+indexEntry])
		}
		e[1] = byte(crc32.Checksum(e[2:], castagnoli))
		want = append(want, e[:]...)
	}
	if fits || len(headers) == 0 && len(b) == 0 {
		return nil
	}
	return replaceFile(filepath.Dir(path), filepath.Base(path), want)
}

// examineSnapshot removes what the broker would believe instead of the records, unless it is what it was: it is made out of them again.
func (p *examined) examineSnapshot() error {
	const name = snapshotName
	path := filepath.Join(p.dir, name)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	now := recordOf(b)
	if known, ok := p.known(name); ok && known == now || p.record == nil && json.Valid(b) {
		p.found[name] = now
		return nil
	}
	return os.Remove(path)
}

// closed takes what a broker wrote when it was closed into a testimony.
func (w *witness) closed(logDir string, t *testimony) error {
	snapshots, err := filepath.Glob(filepath.Join(logDir, "partitions", "*", snapshotName))
	if err != nil {
		return err
	}
	for _, path := range snapshots {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := filepath.Base(filepath.Dir(path))
		record := t.Partitions[name]
		if record.Files == nil {
			record.Files = map[string]fileRecord{}
		}
		record.Files[snapshotName] = recordOf(b)
		t.Partitions[name] = record
	}
	return w.look(logDir, t)
}

// partitionDir is the broker's name of a partition's directory.
func partitionDir(topic string, partition int32) string {
	return fmt.Sprintf("%s-%d", url.PathEscape(topic), partition)
}

// open begins to note what is acknowledged.
func (w *witness) open() (err error) {
	if w.file, err = os.OpenFile(filepath.Join(w.dir, endsName), os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return err
	}
	w.dirty, w.stop, w.done = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	for w.writing = range int64(endsSlots) {
		if err = w.put(); err == nil {
			err = w.file.Sync()
		}
		if err != nil {
			w.file.Close()
			return err
		}
	}
	w.safe, w.writing = endsSlots-1, 0
	if err = syncDir(w.dir); err != nil {
		w.file.Close()
		return err
	}
	go w.sync()
	return nil
}

// put writes the slot. w.mu is held, or nobody else is there.
func (w *witness) put() error {
	payload, err := json.Marshal(w.ends)
	if err != nil {
		return err
	}
	if len(payload) > endsSlot-endsHeader {
		return fmt.Errorf("%d partitions are too many for an embedded log", len(w.ends))
	}
	w.sequence++
	b := append(make([]byte, 0, endsHeader+len(payload)), endsMagic...)
	b = binary.LittleEndian.AppendUint32(b, witnessVersion)
	b = binary.LittleEndian.AppendUint64(b, w.sequence)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, payload))
	_, err = w.file.WriteAt(append(b, payload...), w.writing*endsSlot)
	return err
}

// acknowledged notes that records are durable. A disk that takes no note of it, though it took the records, makes us less watchful, not wrong.
func (w *witness) acknowledged(records []*kgo.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range records {
		name := partitionDir(r.Topic, r.Partition)
		w.ends[name] = max(w.ends[name], r.Offset+1)
	}
	err := w.put()
	if err != nil && w.failed == nil {
		w.warn("how far the embedded log was acknowledged can't be noted; damage to its end would not be found", "error", err)
	}
	w.failed = err
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

// sync makes what was written safe now and then. Of the three slots one is written, one is being synced, and one is safe.
func (w *witness) sync() {
	defer close(w.done)
	for {
		select {
		case <-w.stop:
			return
		case <-w.dirty:
		}
		select {
		case <-w.stop:
			return
		case <-time.After(endsEvery):
		}
		w.mu.Lock()
		syncing := w.writing
		w.writing = endsSlots - w.safe - syncing
		w.mu.Unlock()
		err := w.file.Sync()
		w.mu.Lock()
		if err == nil {
			w.safe = syncing
		} else {
			w.writing = syncing
		}
		w.mu.Unlock()
	}
}

// close writes everything down.
func (w *witness) close() error {
	close(w.stop)
	<-w.done
	return errors.Join(w.file.Sync(), w.file.Close())
}
