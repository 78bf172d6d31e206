package flat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// A log file is a header and frames, one a Write; all numbers are little-endian.
//
//	header  32 bytes: magic "LIVEWAL\x00", format version u32, dimension u32, number u64, salt u32, CRC-32C of the 28 bytes before u32
//	frame   40 bytes: magic "LVWF", payload's length u32, sequence u64, synced u64, payload's CRC-32C u32, salt u64, CRC-32C of the 36 bytes before u32
//	        and the payload
//
// synced is how many bytes of the file were known to survive a loss of power when the frame was written. It tells a tail that power took, which is cut
// off, from a frame that was safe once and is damaged now, which is refused. salt is random for each log, so that no document can contain a frame.
const (
	walMagic        = "LIVEWAL\x00"
	frameMagic      = "LVWF"
	walHeaderSize   = 32
	frameHeaderSize = 40
)

// wal is the log of one memtable.
type wal struct {
	fs     fileSystem
	path   string
	number uint64
	salt   uint32
	f      file

	// size is where the next frame goes; only the generation's writer changes it.
	size int64
	// torn: bytes of a failed write may lie behind size; they must go before the next one.
	torn bool

	// syncMu serialises fsync and closing.
	syncMu sync.Mutex
	closed bool
	// written and synced are sizes.
	written, synced atomic.Int64
}

func walName(number uint64) string { return fmt.Sprintf("%08d.wal", number) }

// createWAL starts an empty log.
func createWAL(fs fileSystem, dir string, number uint64, dim int) (*wal, error) {
	w := &wal{fs: fs, path: filepath.Join(dir, walName(number)), number: number, salt: rand.Uint32()}
	f, err := fs.Open(w.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, fmt.Errorf("create log: %w", err)
	}
	w.f = f
	if _, err := f.WriteAt(walHeader(number, dim, w.salt), 0); err != nil {
		f.Close()
		_ = fs.Remove(w.path)
		return nil, fmt.Errorf("create log: %w", err)
	}
	if err := fs.SyncDir(dir); err != nil {
		f.Close()
		_ = fs.Remove(w.path)
		return nil, fmt.Errorf("create log: %w", err)
	}
	w.size = walHeaderSize
	w.written.Store(w.size)
	return w, nil
}

func walHeader(number uint64, dim int, salt uint32) []byte {
	b := append(make([]byte, 0, walHeaderSize), walMagic...)
	b = binary.LittleEndian.AppendUint32(b, formatVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(dim))
	b = binary.LittleEndian.AppendUint64(b, number)
	b = binary.LittleEndian.AppendUint32(b, salt)
	return binary.LittleEndian.AppendUint32(b, checksum(b))
}

// beginFrame makes room for a frame's header; finishFrame fills it in when the payload has been appended.
func beginFrame(b []byte) []byte { return append(b[:0], make([]byte, frameHeaderSize)...) }

func (w *wal) finishFrame(b []byte, seq uint64) {
	payload := b[frameHeaderSize:]
	h := append(b[:0], frameMagic...)
	h = binary.LittleEndian.AppendUint32(h, uint32(len(payload)))
	h = binary.LittleEndian.AppendUint64(h, seq)
	h = binary.LittleEndian.AppendUint64(h, uint64(w.synced.Load()))
	h = binary.LittleEndian.AppendUint32(h, checksum(payload))
	h = binary.LittleEndian.AppendUint64(h, uint64(w.salt))
	binary.LittleEndian.AppendUint32(h, checksum(h))
}

// append writes a frame. After an error nothing of it counts, and the next append cleans up first.
func (w *wal) append(frame []byte) error {
	if w.torn {
		if err := w.f.Truncate(w.size); err != nil {
			return fmt.Errorf("cut a failed write off the log: %w", err)
		}
		w.torn = false
	}
	if _, err := w.f.WriteAt(frame, w.size); err != nil {
		if w.f.Truncate(w.size) != nil {
			w.torn = true
		}
		return fmt.Errorf("write log: %w", err)
	}
	w.size += int64(len(frame))
	w.written.Store(w.size)
	return nil
}

// sync makes what was written before the call survive a loss of power.
func (w *wal) sync() error {
	w.syncMu.Lock()
	defer w.syncMu.Unlock()
	n := w.written.Load()
	if w.closed || w.synced.Load() >= n {
		return nil // a log is closed when what it holds is safe elsewhere
	}
	if err := w.f.Sync(); err != nil {
		return fmt.Errorf("sync log: %w", err)
	}
	w.synced.Store(n)
	return nil
}

func (w *wal) close() error {
	w.syncMu.Lock()
	defer w.syncMu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	return w.f.Close()
}

// openWAL reads a log's frames in order, calls replay with each, and opens the log for further ones. Only of the last log may the tail be
// missing, because a log is synced before the next one begins.
func openWAL(fs fileSystem, dir string, number uint64, dim int, last bool, replay func(seq uint64, payload []byte) error) (*wal, error) {
	w := &wal{fs: fs, path: filepath.Join(dir, walName(number)), number: number}
	b, err := os.ReadFile(w.path)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if len(b) < walHeaderSize && last {
		return createWAL(fs, dir, number, dim) // the process ended while it was created
	}
	if len(b) < walHeaderSize || string(b[:8]) != walMagic {
		return nil, corruptf(w.path, "not a log")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != formatVersion {
		// The checksum of a later version may be elsewhere, so the number is believed as it is.
		return nil, formatf(w.path, v)
	}
	w.salt = binary.LittleEndian.Uint32(b[24:])
	if !bytes.Equal(b[:walHeaderSize], walHeader(number, dim, w.salt)) {
		return nil, corruptf(w.path, "the header is damaged")
	}
	at := walHeaderSize
	for at < len(b) {
		seq, payload, ok := w.parseFrame(b[at:])
		if !ok {
			break
		}
		if err := replay(seq, payload); err != nil {
			return nil, fmt.Errorf("%s, byte %d: %w", w.path, at, err)
		}
		at += frameHeaderSize + len(payload)
	}
	if at < len(b) {
		if !last {
			return nil, corruptf(w.path, "the frame at byte %d is damaged, and another log follows", at)
		}
		if safe := w.claimed(b[at:]); safe > uint64(at) {
			return nil, corruptf(w.path, "the frame at byte %d is damaged, and was safe on disk", at)
		}
	}
	if w.f, err = fs.Open(w.path, os.O_RDWR); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	w.size = int64(at)
	if at < len(b) {
		err := w.f.Truncate(w.size)
		if err == nil {
			err = w.f.Sync() // what was cut off must not come back behind new frames
		}
		if err != nil {
			w.f.Close()
			return nil, fmt.Errorf("cut the torn tail off the log: %w", err)
		}
	}
	w.written.Store(w.size)
	return w, nil
}

// parseFrame reads the frame that b begins with.
func (w *wal) parseFrame(b []byte) (seq uint64, payload []byte, ok bool) {
	if !w.frameHeaderOK(b) {
		return 0, nil, false
	}
	n := uint64(binary.LittleEndian.Uint32(b[4:]))
	if n > uint64(len(b)-frameHeaderSize) {
		return 0, nil, false
	}
	payload = b[frameHeaderSize : frameHeaderSize+n]
	if checksum(payload) != binary.LittleEndian.Uint32(b[24:]) {
		return 0, nil, false
	}
	return binary.LittleEndian.Uint64(b[8:]), payload, true
}

func (w *wal) frameHeaderOK(b []byte) bool {
	return len(b) >= frameHeaderSize && string(b[:4]) == frameMagic && binary.LittleEndian.Uint64(b[28:]) == uint64(w.salt) && checksum(b[:36]) == binary.LittleEndian.Uint32(b[36:])
}

// claimed returns the largest synced size that an intact frame in b speaks of.
func (w *wal) claimed(b []byte) (synced uint64) {
	for {
		i := bytes.Index(b, []byte(frameMagic))
		if i < 0 {
			return synced
		}
		b = b[i:]
		if w.frameHeaderOK(b) {
			synced = max(synced, binary.LittleEndian.Uint64(b[16:]))
		}
		b = b[len(frameMagic):]
	}
}
