package flat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/liverag/liverag/internal/lexical"
	"github.com/liverag/liverag/vectordb"
)

// A segment file holds rows that never change. It is a header and sections, each beginning at a multiple of 64; all numbers are little-endian.
//
//	header   magic "LIVESEG\x00", format version u32, dimension u32, number u64, rows u32, entries u32, terms version u32, sections u32,
//	         for each section: offset u64, length u64, CRC-32C u32, zero u32; CRC-32C of all before u32
//	rows     rowRecord each
//	blob     each row's key, fields and access list
//	texts    each row's text, compressed in blocks
//	entries  entryRecord each
//	scales   float32 each entry
//	codes    int8 [entries][dimension]
//	vectors  float32 [entries][dimension]
//	keys     a hash table: upper half of the key's hash and row+1, as one u64; its length is a power of two
//	order    the rows by key, u32 each
//	postings see internal/lexical
//	columns  see column.go
const (
	segmentMagic = "LIVESEG\x00"

	sectionRows = iota - 1
	sectionBlob
	sectionTexts
	sectionEntries
	sectionScales
	sectionCodes
	sectionVectors
	sectionKeys
	sectionOrder
	sectionPostings
	sectionColumns
	sections

	sectionHeaderSize = 24
	segmentHeaderSize = 8 + 4 + 4 + 8 + 4 + 4 + 4 + 4 + sections*sectionHeaderSize + 4
)

var sectionNames = [sections]string{"rows", "blob", "texts", "entries", "scales", "codes", "vectors", "keys", "order", "postings", "columns"}

// rowRecord is a row as files hold it.
type rowRecord struct {
	seq                                 uint64
	version                             int64
	searchable                          int64
	hash                                uint64
	blob, text                          uint64
	keyLen, metaLen, accessLen, textLen uint32
	textSize, first, n, flags           uint32
}

const rowDeleted = 1

type section struct {
	offset, length uint64
	crc            uint32
}

// segment is a mapped segment file.
type segment struct {
	path   string
	number uint64
	dim    int
	bytes  int64

	rows    []rowRecord
	blob    []byte
	texts   []byte
	entries []entryRecord
	scales  []float32
	code    []int8
	vectors []float32
	keys    []uint64
	order   []uint32
	terms   *lexical.Sealed
	columns columns
	// stale: the postings were made by another analysis of the text, and anew at opening.
	stale bool

	dead []atomic.Uint64

	data     []byte
	table    [sections]section
	refs     atomic.Int64
	obsolete atomic.Bool
	free     func(*segment)
}

func segmentName(number uint64) string { return fmt.Sprintf("%08d.seg", number) }

// release gives back a reference. The last one unmaps the file.
func (s *segment) release() {
	if s.refs.Add(-1) == 0 {
		s.free(s)
	}
}

// openSegment maps a file and checks all of it but texts, codes and vectors, whose damage can't lead astray and which verify checks.
func openSegment(dir string, number uint64, dim int) (*segment, error) {
	path := filepath.Join(dir, segmentName(number))
	b, unmap, err := mapFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, corruptf(path, "it is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	s := &segment{path: path, number: number, dim: dim, data: b, bytes: int64(len(b))}
	s.refs.Store(1)
	s.free = func(s *segment) {
		unmap()
		if s.obsolete.Load() {
			_ = os.Remove(s.path)
		}
	}
	if err := s.parse(b); err != nil {
		unmap()
		return nil, err
	}
	return s, nil
}

func (s *segment) parse(b []byte) error {
	if len(b) < 12 || string(b[:8]) != segmentMagic {
		return corruptf(s.path, "not a segment")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != formatVersion {
		return formatf(s.path, v)
	}
	if len(b) < segmentHeaderSize || checksum(b[:segmentHeaderSize-4]) != binary.LittleEndian.Uint32(b[segmentHeaderSize-4:]) {
		return corruptf(s.path, "the header is damaged")
	}
	d := decoder{b: b[12:segmentHeaderSize]}
	dim, number, rows, entries, termsVersion, n := d.uint32(), d.uint64(), d.uint32(), d.uint32(), d.uint32(), d.uint32()
	if int(dim) != s.dim || number != s.number || n != sections {
		return corruptf(s.path, "it is segment %d of dimension %d", number, dim)
	}
	end := uint64(segmentHeaderSize)
	for i := range s.table {
		t := section{offset: d.uint64(), length: d.uint64(), crc: d.uint32()}
		d.uint32()
		if t.offset < end || t.offset%64 != 0 || t.offset > uint64(len(b)) || t.length > uint64(len(b))-t.offset {
			return corruptf(s.path, "the file is too short for its %s", sectionNames[i])
		}
		end = t.offset + t.length
		s.table[i] = t
	}
	if end != uint64(len(b)) {
		return corruptf(s.path, "it has %d bytes and should have %d", len(b), end)
	}
	for i, want := range map[int]uint64{
		sectionRows:    uint64(rows) * uint64(unsafe.Sizeof(rowRecord{})),
		sectionEntries: uint64(entries) * uint64(unsafe.Sizeof(entryRecord{})),
		sectionScales:  uint64(entries) * 4,
		sectionCodes:   uint64(entries) * uint64(dim),
		sectionVectors: uint64(entries) * uint64(dim) * 4,
		sectionOrder:   uint64(rows) * 4,
	} {
		if s.table[i].length != want {
			return corruptf(s.path, "its %s have %d bytes instead of %d", sectionNames[i], s.table[i].length, want)
		}
	}
	for _, i := range []int{sectionRows, sectionBlob, sectionEntries, sectionScales, sectionKeys, sectionOrder, sectionPostings, sectionColumns} {
		if err := s.check(i); err != nil {
			return err
		}
	}
	s.rows = cast[rowRecord](s.section(sectionRows))
	s.blob = s.section(sectionBlob)
	s.texts = s.section(sectionTexts)
	s.entries = cast[entryRecord](s.section(sectionEntries))
	s.scales = cast[float32](s.section(sectionScales))
	s.code = cast[int8](s.section(sectionCodes))
	s.vectors = cast[float32](s.section(sectionVectors))
	s.keys = cast[uint64](s.section(sectionKeys))
	s.order = cast[uint32](s.section(sectionOrder))
	s.dead = make([]atomic.Uint64, rows)
	var ok bool
	if s.columns, ok = openColumns(s.section(sectionColumns), rows); !ok {
		return corruptf(s.path, "its columns make no sense")
	}
	if termsVersion != vectordb.TermsVersion {
		return s.analyse()
	}
	var err error
	if s.terms, err = lexical.Open(s.section(sectionPostings)); err != nil {
		return corruptf(s.path, "postings: %v", err)
	}
	return nil
}

// analyse makes the postings anew from the texts, in memory. The next merge writes them down.
func (s *segment) analyse() error {
	m := lexical.NewMem()
	for i := range s.rows {
		r := s.row(uint32(i))
		terms, err := rowTerms(s, &r)
		if err != nil {
			return corruptf(s.path, "%v", err)
		}
		for j, t := range terms {
			m.Add(r.first+uint32(j), t)
		}
	}
	terms, err := lexical.Open(m.Seal(func(ord uint32) (uint32, bool) { return ord, true }))
	if err != nil {
		return fmt.Errorf("analyse %s anew: %w", s.path, err)
	}
	s.terms, s.stale = terms, true
	return nil
}

func (s *segment) section(i int) []byte {
	t := s.table[i]
	return s.data[t.offset : t.offset+t.length : t.offset+t.length]
}

func (s *segment) check(i int) error {
	if checksum(s.section(i)) != s.table[i].crc {
		return corruptf(s.path, "its %s are damaged", sectionNames[i])
	}
	return nil
}

// verify checks what openSegment left out. It reads the whole file.
func (s *segment) verify() error {
	for _, i := range []int{sectionTexts, sectionCodes, sectionVectors} {
		if err := s.check(i); err != nil {
			return err
		}
	}
	return nil
}

func (s *segment) size() (rows, entries uint32) { return uint32(len(s.rows)), uint32(len(s.entries)) }
func (s *segment) entry(e uint32) entryRecord   { return s.entries[e] }
func (s *segment) died(i uint32) *atomic.Uint64 { return &s.dead[i] }
func (s *segment) postings() lexical.Part       { return s.terms }

func (s *segment) vector(e uint32) []float32 {
	return s.vectors[int(e)*s.dim : (int(e)+1)*s.dim]
}

func (s *segment) codes(yield func(first uint32, codes []int8, scales []float32)) {
	yield(0, s.code, s.scales)
}

func (s *segment) key(i uint32) string {
	r := &s.rows[i]
	b := s.blob[r.blob : r.blob+uint64(r.keyLen)]
	return unsafe.String(unsafe.SliceData(b), len(b))
}

func (s *segment) row(i uint32) row {
	r := &s.rows[i]
	blob := s.blob[r.blob:]
	key := blob[:r.keyLen]
	return row{
		key: unsafe.String(unsafe.SliceData(key), len(key)),
		seq: r.seq, version: r.version, deleted: r.flags&rowDeleted != 0, searchable: r.searchable,
		first: r.first, n: r.n,
		meta:   blob[r.keyLen:][:r.metaLen],
		access: blob[r.keyLen+r.metaLen:][:r.accessLen],
		text:   s.texts[r.text:][:r.textLen],
		size:   r.textSize,
	}
}

func (s *segment) find(key string, hash uint64, yield func(i uint32)) {
	if len(s.keys) == 0 {
		return
	}
	mask := uint64(len(s.keys) - 1)
	for at := hash & mask; s.keys[at] != 0; at = (at + 1) & mask {
		if k := s.keys[at]; k>>32 == hash>>32 && s.key(uint32(k)-1) == key {
			yield(uint32(k) - 1)
		}
	}
}

func (s *segment) allowed(q *vectordb.Query) *bitset {
	return s.columns.allowed(q, uint32(len(s.rows)))
}

// segmentWriter writes a file section by section.
type segmentWriter struct {
	f     file
	at    uint64
	buf   []byte
	table [sections]section
	next  int
	err   error
}

func (w *segmentWriter) flush() {
	if w.err == nil && len(w.buf) > 0 {
		_, w.err = w.f.WriteAt(w.buf, int64(w.at)-int64(len(w.buf)))
	}
	w.buf = w.buf[:0]
}

func (w *segmentWriter) bytes(b []byte) {
	for len(b) > 0 {
		n := min(len(b), cap(w.buf)-len(w.buf))
		w.buf = append(w.buf, b[:n]...)
		w.at += uint64(n)
		b = b[n:]
		if len(w.buf) == cap(w.buf) {
			w.flush()
		}
	}
}

// section writes a section; fill calls put with its bytes, in pieces.
func (w *segmentWriter) section(fill func(put func(b []byte))) {
	var zeros [64]byte
	w.bytes(zeros[:(64-w.at%64)%64])
	t := section{offset: w.at}
	fill(func(b []byte) {
		t.crc = updateChecksum(t.crc, b)
		w.bytes(b)
	})
	t.length = w.at - t.offset
	w.table[w.next] = t
	w.next++
}

// gone stands for a row or an entry that was left out.
const gone = ^uint32(0)

// renumbering tells where the rows and entries of a part went.
type renumbering struct{ rows, entries []uint32 }

// writeSegment writes the rows of the parts that keep wants into a new file, under a temporary name first, so that a file with a segment's name is whole.
// The parts are one memtable, or segments.
func writeSegment(fs fileSystem, dir string, number uint64, dim int, parts []part, keep func(p part, i uint32, r *row) bool) (moved []renumbering, err error) {
	var rows, entries uint32
	moved = make([]renumbering, len(parts))
	for p, part := range parts {
		n, m := part.size()
		moved[p] = renumbering{make([]uint32, n), make([]uint32, m)}
		for i := range moved[p].entries {
			moved[p].entries[i] = gone
		}
		for i := range n {
			r := part.row(i)
			if !keep(part, i, &r) {
				moved[p].rows[i] = gone
				continue
			}
			moved[p].rows[i] = rows
			rows++
			for j := range r.n {
				moved[p].entries[r.first+j] = entries
				entries++
			}
		}
	}
	// each calls f with every row that stays.
	each := func(f func(p part, i, to uint32, r *row)) {
		for p, part := range parts {
			for i, to := range moved[p].rows {
				if to != gone {
					r := part.row(uint32(i))
					f(part, uint32(i), to, &r)
				}
			}
		}
	}

	temporary := filepath.Join(dir, segmentName(number)+".tmp")
	f, err := fs.Open(temporary, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, fmt.Errorf("create segment: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			_ = fs.Remove(temporary)
		}
	}()
	w := &segmentWriter{f: f, buf: make([]byte, 0, 1<<20)}
	w.bytes(make([]byte, segmentHeaderSize))

	cols := newColumnBuilder()
	var broken error
	keys := make([]uint64, tableSize(rows))
	names := make([]string, rows)
	w.section(func(put func([]byte)) {
		var first uint32
		var blob, text uint64
		each(func(p part, i, to uint32, r *row) {
			h := hashKey(r.key)
			rec := rowRecord{
				seq: r.seq, version: r.version, searchable: r.searchable, hash: h, blob: blob, text: text,
				keyLen: uint32(len(r.key)), metaLen: uint32(len(r.meta)), accessLen: uint32(len(r.access)), textLen: uint32(len(r.text)),
				textSize: r.size, first: first, n: r.n,
			}
			if r.deleted {
				rec.flags |= rowDeleted
			}
			put(raw([]rowRecord{rec}))
			blob += uint64(len(r.key) + len(r.meta) + len(r.access))
			text += uint64(len(r.text))
			first += r.n
			at := h & uint64(len(keys)-1)
			for keys[at] != 0 {
				at = (at + 1) & uint64(len(keys)-1)
			}
			keys[at] = h>>32<<32 | uint64(to+1)
			names[to] = r.key
			if r.version > 0 && !r.deleted {
				rev, err := r.revision()
				if err != nil {
					broken = err
					return
				}
				cols.add(to, &rev)
			}
		})
	})
	w.section(func(put func([]byte)) {
		each(func(_ part, _, _ uint32, r *row) {
			put(unsafe.Slice(unsafe.StringData(r.key), len(r.key)))
			put(r.meta)
			put(r.access)
		})
	})
	w.section(func(put func([]byte)) {
		each(func(_ part, _, _ uint32, r *row) { put(r.text) })
	})
	w.section(func(put func([]byte)) {
		each(func(p part, _, to uint32, r *row) {
			for j := range r.n {
				e := p.entry(r.first + j)
				e.row = to
				put(raw([]entryRecord{e}))
			}
		})
	})
	// Of scales and codes runs are copied as they lie.
	for _, codes := range []bool{false, true} {
		w.section(func(put func([]byte)) {
			for p, part := range parts {
				part.codes(func(first uint32, c []int8, scales []float32) {
					for i := 0; i < len(scales); {
						if moved[p].entries[int(first)+i] == gone {
							i++
							continue
						}
						from := i
						for i < len(scales) && moved[p].entries[int(first)+i] != gone {
							i++
						}
						if codes {
							put(raw(c[from*dim : i*dim]))
						} else {
							put(raw(scales[from:i]))
						}
					}
				})
			}
		})
	}
	w.section(func(put func([]byte)) {
		each(func(p part, _, _ uint32, r *row) {
			for j := range r.n {
				put(raw(p.vector(r.first + j)))
			}
		})
	})
	w.section(func(put func([]byte)) { put(raw(keys)) })
	order := make([]uint32, rows)
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return strings.Compare(names[a], names[b]) })
	w.section(func(put func([]byte)) { put(raw(order)) })
	w.section(func(put func([]byte)) { put(joinPostings(parts, moved)) })
	w.section(func(put func([]byte)) { put(cols.bytes()) })
	w.flush()
	if err = w.err; err == nil {
		err = broken
	}
	if err == nil {
		_, err = f.WriteAt(segmentHeader(number, dim, rows, entries, &w.table), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, fmt.Errorf("write segment: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("write segment: %w", err)
	}
	if err := fs.Rename(temporary, filepath.Join(dir, segmentName(number))); err != nil {
		return nil, fmt.Errorf("write segment: %w", err)
	}
	if err := fs.SyncDir(dir); err != nil {
		_ = fs.Remove(filepath.Join(dir, segmentName(number)))
		return nil, fmt.Errorf("write segment: %w", err)
	}
	return moved, nil
}

func segmentHeader(number uint64, dim int, rows, entries uint32, table *[sections]section) []byte {
	h := append(make([]byte, 0, segmentHeaderSize), segmentMagic...)
	h = binary.LittleEndian.AppendUint32(h, formatVersion)
	h = binary.LittleEndian.AppendUint32(h, uint32(dim))
	h = binary.LittleEndian.AppendUint64(h, number)
	h = binary.LittleEndian.AppendUint32(h, rows)
	h = binary.LittleEndian.AppendUint32(h, entries)
	h = binary.LittleEndian.AppendUint32(h, vectordb.TermsVersion)
	h = binary.LittleEndian.AppendUint32(h, sections)
	for _, t := range table {
		h = binary.LittleEndian.AppendUint64(h, t.offset)
		h = binary.LittleEndian.AppendUint64(h, t.length)
		h = binary.LittleEndian.AppendUint32(h, t.crc)
		h = binary.LittleEndian.AppendUint32(h, 0)
	}
	return binary.LittleEndian.AppendUint32(h, checksum(h))
}

// joinPostings returns the postings of the entries that stay.
func joinPostings(parts []part, moved []renumbering) []byte {
	live := make([]func(uint32) (uint32, bool), len(parts))
	for p := range parts {
		entries := moved[p].entries
		live[p] = func(ord uint32) (uint32, bool) { return entries[ord], entries[ord] != gone }
	}
	if m, ok := parts[0].(*memView); ok {
		return m.terms.Seal(live[0])
	}
	sealed := make([]*lexical.Sealed, len(parts))
	for p, part := range parts {
		sealed[p] = part.(*segment).terms
	}
	return lexical.Merge(sealed, live)
}

// tableSize is the length of a hash table for so many rows: at most two thirds full.
func tableSize(rows uint32) int {
	n := 1
	for n < int(rows)+int(rows)/2+1 {
		n *= 2
	}
	return n
}

// rowTerms returns the terms of a row's entries, a list an entry.
func rowTerms(p part, r *row) ([][]string, error) {
	if r.n == 0 {
		return nil, nil
	}
	text, err := unpackText(r.text, int(r.size), 0, int(r.size))
	if err != nil {
		return nil, err
	}
	terms := make([][]string, r.n)
	for j := range terms {
		e := p.entry(r.first + uint32(j))
		if e.start > e.end || e.end > r.size {
			return nil, fmt.Errorf("%w: an entry beyond its text", vectordb.ErrCorrupt)
		}
		terms[j] = vectordb.AppendTerms(nil, text[e.start:e.end])
	}
	return terms, nil
}
