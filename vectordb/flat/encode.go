package flat

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"time"
	"unsafe"

	"github.com/klauspost/compress/s2"

	"github.com/liverag/liverag/vectordb"
)

// castagnoli is the CRC of every file here; x86 and arm64 have instructions for it.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func updateChecksum(crc uint32, b []byte) uint32 { return crc32.Update(crc, castagnoli, b) }

// corruptf reports a file that is not what was written.
func corruptf(file, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s; drop this generation and replay the log into a new one", vectordb.ErrCorrupt, file, fmt.Sprintf(format, args...))
}

// formatf reports a file of another version of the program.
func formatf(file string, version uint32) error {
	return fmt.Errorf("%w: %s has format version %d, this program knows %d; use the newer program, or drop this generation and replay the log into a new one",
		vectordb.ErrFormat, file, version, formatVersion)
}

// formatVersion is in every file's header. It changes when a file of the older shape can no longer be read as it is.
const formatVersion = 1

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendTime writes microseconds, which is what the contract keeps; the zero time has a number of its own.
func appendTime(b []byte, t time.Time) []byte { return binary.AppendVarint(b, micros(t)) }

func micros(t time.Time) int64 {
	if t.IsZero() {
		return math.MinInt64
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == math.MinInt64 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// A list that is nil is written as 0, else its length plus one.
func appendList(b []byte, list []string) []byte {
	if list == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(list))+1)
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

// Kinds of metadata value.
const (
	metaString = iota + 1
	metaNumber
	metaFalse
	metaTrue
	metaStrings
)

// appendMeta writes the content's fields other than the text.
func appendMeta(b []byte, r *vectordb.Revision) ([]byte, error) {
	b = appendString(b, r.ContentType)
	b = appendString(b, r.Title)
	b = appendString(b, r.URL)
	b = appendTime(b, r.UpdatedAt)
	b = appendTime(b, r.LoggedAt)
	b = appendString(b, r.Tenant)
	b = appendList(b, r.ACL)
	if r.Metadata == nil {
		return append(b, 0), nil
	}
	b = binary.AppendUvarint(b, uint64(len(r.Metadata))+1)
	names := make([]string, 0, len(r.Metadata))
	for name := range r.Metadata {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b = appendString(b, name)
		switch v := r.Metadata[name].(type) {
		case string:
			b = appendString(append(b, metaString), v)
		case float64:
			b = binary.LittleEndian.AppendUint64(append(b, metaNumber), math.Float64bits(v))
		case bool:
			if v {
				b = append(b, metaTrue)
			} else {
				b = append(b, metaFalse)
			}
		case []string:
			b = appendList(append(b, metaStrings), v)
		default:
			return nil, fmt.Errorf("%w: metadata %q is a %T; string, float64, bool and []string can be stored", vectordb.ErrInvalid, name, v)
		}
	}
	return b, nil
}

// appendAccess writes what was said of a document's access apart from its content; nothing if nothing was.
func appendAccess(b []byte, a vectordb.Access) []byte {
	if a.Version == 0 {
		return b
	}
	b = binary.AppendVarint(b, a.Version)
	var clear byte
	if a.Clear {
		clear = 1
	}
	return appendList(append(b, clear), a.ACL)
}

// decoder takes apart what the functions above wrote. After the first error it yields zeros, so err is looked at once, at the end.
// What it returns shares no memory with the bytes.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() { d.b, d.bad = nil, true }

func (d *decoder) uvarint() uint64 {
	n, size := binary.Uvarint(d.b)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) varint() int64 {
	n, size := binary.Varint(d.b)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[size:]
	return n
}

// length reads a count of things of at least so many bytes each, and refuses one that can't be there.
func (d *decoder) length(each int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/each) {
		d.fail()
		return 0
	}
	return int(n)
}

// bytes returns the next n bytes, which are the decoder's own.
func (d *decoder) bytes(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.fail()
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	if b := d.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) blob() []byte    { return d.bytes(d.length(1)) }
func (d *decoder) string() string  { return string(d.blob()) }
func (d *decoder) time() time.Time { return fromMicros(d.varint()) }

func (d *decoder) list() []string {
	n := d.uvarint()
	if n == 0 {
		return nil
	}
	n--
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = d.string()
	}
	return list
}

// meta is the inverse of appendMeta.
func (d *decoder) meta(r *vectordb.Revision) {
	r.ContentType = d.string()
	r.Title = d.string()
	r.URL = d.string()
	r.UpdatedAt = d.time()
	r.LoggedAt = d.time()
	r.Tenant = d.string()
	r.ACL = d.list()
	n := d.uvarint()
	if n == 0 {
		return
	}
	n--
	if n > uint64(len(d.b)) {
		d.fail()
		return
	}
	r.Metadata = make(map[string]any, n)
	for range n {
		name := d.string()
		switch d.byte() {
		case metaString:
			r.Metadata[name] = d.string()
		case metaNumber:
			r.Metadata[name] = math.Float64frombits(d.uint64())
		case metaFalse:
			r.Metadata[name] = false
		case metaTrue:
			r.Metadata[name] = true
		case metaStrings:
			r.Metadata[name] = d.list()
		default:
			d.fail()
			return
		}
	}
}

// access is the inverse of appendAccess.
func (d *decoder) access() (a vectordb.Access) {
	if len(d.b) == 0 {
		return a
	}
	a.Version = d.varint()
	a.Clear = d.byte() == 1
	a.ACL = d.list()
	return a
}

func decodeAccess(b []byte) vectordb.Access {
	d := decoder{b: b}
	return d.access()
}

// textBlock is how much of a text is compressed together: a hit decompresses the one or two blocks that its span touches, not the document.
const textBlock = 32 << 10

// packText compresses a text block by block: the packed length of every block as a uint32, then the blocks.
func packText(dst []byte, text string) []byte {
	n := (len(text) + textBlock - 1) / textBlock
	start := len(dst)
	dst = append(dst, make([]byte, 4*n)...)
	for i := range n {
		block := text[i*textBlock : min((i+1)*textBlock, len(text))]
		at := len(dst)
		dst = slices.Grow(dst, s2.MaxEncodedLen(len(block)))
		dst = dst[:at+len(s2.Encode(dst[at:cap(dst)], unsafe.Slice(unsafe.StringData(block), len(block))))]
		binary.LittleEndian.PutUint32(dst[start+4*i:], uint32(len(dst)-at))
	}
	return dst
}

// unpackText returns text[from:to) of a packed text of size bytes.
func unpackText(packed []byte, size, from, to int) (string, error) {
	if from < 0 || from > to || to > size {
		return "", fmt.Errorf("%w: a span beyond its text", vectordb.ErrCorrupt)
	}
	if from == to {
		return "", nil
	}
	n := (size + textBlock - 1) / textBlock
	if len(packed) < 4*n {
		return "", fmt.Errorf("%w: a text without its blocks", vectordb.ErrCorrupt)
	}
	first, last := from/textBlock, (to-1)/textBlock
	at := uint64(4 * n)
	for i := range first {
		at += uint64(binary.LittleEndian.Uint32(packed[4*i:]))
	}
	out := make([]byte, 0, min((last+1)*textBlock, size)-first*textBlock)
	for i := first; i <= last; i++ {
		length := uint64(binary.LittleEndian.Uint32(packed[4*i:]))
		want := min(textBlock, size-i*textBlock)
		if at+length > uint64(len(packed)) {
			return "", fmt.Errorf("%w: a text's block lies outside of it", vectordb.ErrCorrupt)
		}
		block := packed[at : at+length]
		if got, err := s2.DecodedLen(block); err != nil || got != want {
			return "", fmt.Errorf("%w: a text's block has another length", vectordb.ErrCorrupt)
		}
		if _, err := s2.Decode(out[len(out):len(out)+want:cap(out)], block); err != nil {
			return "", fmt.Errorf("%w: unpack text: %v", vectordb.ErrCorrupt, err)
		}
		out = out[:len(out)+want]
		at += length
	}
	out = out[from-first*textBlock : to-first*textBlock]
	return unsafe.String(unsafe.SliceData(out), len(out)), nil
}

// hashKey is FNV-1a with its bits mixed once more, so that the low ones depend on all. It is in the files: it can't change without formatVersion.
func hashKey(key string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return h ^ h>>32
}

// view casts bytes of a mapped file to numbers. Files are little-endian, and sections begin at multiples of 64.
func cast[T uint32 | uint64 | float32 | int8 | rowRecord | entryRecord](b []byte) []T {
	var t T
	n := len(b) / int(unsafe.Sizeof(t))
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

// raw is the inverse of cast.
func raw[T uint32 | uint64 | float32 | int8 | rowRecord | entryRecord](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(s[0])))
}
