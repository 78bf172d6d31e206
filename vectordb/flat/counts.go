package flat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/s2"

	"github.com/liverag/liverag/internal/lexical"
	"github.com/liverag/liverag/vectordb"
)

// A file of counts holds how many live entries have each term, tenant by tenant, as of a manifest's sequence. It saves analysing every text again
// at opening, which happens if the file is missing, damaged, or of another analysis.
//
//	magic "LIVECNT\x00", format version u32, terms version u32, CRC-32C of the rest u32, and compressed (S2): for each tenant its name and counts,
//	both with their length before them
const (
	countsMagic      = "LIVECNT\x00"
	countsHeaderSize = 20
)

func countsName(number uint64) string { return fmt.Sprintf("%08d.counts", number) }

// packCounts returns the counts of now as a file's content.
func (g *generation) packCounts() []byte {
	var payload, one []byte
	g.termCounts.Range(func(tenant, stats any) bool {
		if s := stats.(*lexical.Stats); s.N() > 0 {
			one = s.AppendTo(one[:0])
			payload = appendString(payload, tenant.(string))
			payload = append(binary.AppendUvarint(payload, uint64(len(one))), one...)
		}
		return true
	})
	return payload
}

// countsFile is the file around what packCounts returned.
func countsFile(payload []byte) []byte {
	packed := s2.Encode(nil, payload)
	b := append(make([]byte, 0, countsHeaderSize+len(packed)), countsMagic...)
	b = binary.LittleEndian.AppendUint32(b, formatVersion)
	b = binary.LittleEndian.AppendUint32(b, vectordb.TermsVersion)
	b = binary.LittleEndian.AppendUint32(b, checksum(packed))
	return append(b, packed...)
}

// loadCounts reads the counts that belong to the manifest, or makes them by analysing every live row.
func (g *generation) loadCounts(m *manifest) error {
	err := g.readCounts(m.Counts)
	if err == nil {
		return nil
	}
	if len(g.set.segments) > 0 {
		g.options.Logger.Warn("counting terms anew", "generation", g.about.Name, "reason", err)
	}
	g.termCounts.Clear()
	for _, s := range g.set.segments {
		for i := range s.rows {
			if s.dead[i].Load() != 0 || s.rows[i].n == 0 {
				continue
			}
			r := s.row(uint32(i))
			terms, err := rowTerms(s, &r)
			if err != nil {
				return corruptf(s.path, "%v", err)
			}
			rev, err := r.revision()
			if err != nil {
				return corruptf(s.path, "%v", err)
			}
			for _, t := range terms {
				g.stats(rev.Tenant).Add(t)
			}
		}
	}
	return nil
}

func (g *generation) readCounts(number uint64) error {
	b, err := os.ReadFile(filepath.Join(g.dir, countsName(number)))
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("there is no file of counts")
	}
	if err != nil {
		return err
	}
	if len(b) < countsHeaderSize || string(b[:8]) != countsMagic || binary.LittleEndian.Uint32(b[8:]) != formatVersion {
		return errors.New("the file of counts is not one")
	}
	if binary.LittleEndian.Uint32(b[12:]) != vectordb.TermsVersion {
		return errors.New("the analysis of texts has changed")
	}
	if checksum(b[countsHeaderSize:]) != binary.LittleEndian.Uint32(b[16:]) {
		return errors.New("the file of counts is damaged")
	}
	payload, err := s2.Decode(nil, b[countsHeaderSize:])
	if err != nil {
		return fmt.Errorf("unpack counts: %w", err)
	}
	d := decoder{b: payload}
	for len(d.b) > 0 {
		tenant := d.string()
		s, err := lexical.ReadStats(d.blob())
		if err != nil {
			return err
		}
		g.termCounts.Store(tenant, s)
	}
	if d.bad {
		return errors.New("the file of counts makes no sense")
	}
	return nil
}
