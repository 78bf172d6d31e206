package local

import (
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/liverag/liverag/embedder"
)

// staticTable is the token table of local/static, made by make-static.py: "SEM1", rows and dimension as uint32, a float32 scale a row,
// then the rows as int8, all little-endian. Row i belongs to token i of the vocabulary; control tokens and [UNK] are zero.
//
//go:embed static256.bin
var staticTable string

// staticHash begins the SHA-256 of everything that decides a vector: static256.bin, vocab.txt, unicode.txt. A test holds it to them.
const staticHash = "a74a0603"

// Static is local/static: a table of token vectors distilled from all-MiniLM-L6-v2 (Tulkens and van Dongen, "Model2Vec", 2024). A text's vector
// is the sum of its tokens' rows, scaled to unit length. It knows neither order nor context, so it finds less than its teacher, and is some five hundred times as fast.
//
// All of an input counts, whatever its length. A text without a known token gives the zero vector. Sums are integers, so results are the same on every machine.
type Static struct {
	pieces *wordPiece
	dim    int
	// rows is the table, rows × dim. An int8 is as good as a byte to unsafe, and the binary's read-only pages serve as they are.
	rows []int8
	// weights are the rows' scales in units of the largest one / 2^weightBits.
	weights []int32
	sums    sync.Pool
}

// weightBits makes the rounding of scales (6e-8 of the largest) vanish beside that of the int8 rows.
const weightBits = 23

// NewStatic opens local/static. The table is in the binary, so only a binary that was tampered with fails.
func NewStatic() (*Static, error) {
	return staticOnce()
}

var staticOnce = sync.OnceValues(func() (*Static, error) {
	const header = 12
	if len(staticTable) < header || staticTable[:4] != "SEM1" {
		return nil, fmt.Errorf("local/static: the token table does not begin with SEM1")
	}
	raw := unsafe.Slice(unsafe.StringData(staticTable), len(staticTable))
	rows, dim := int(binary.LittleEndian.Uint32(raw[4:])), int(binary.LittleEndian.Uint32(raw[8:]))
	pieces := wordPieces()
	if rows != len(pieces.tokens) || len(raw) != header+4*rows+rows*dim {
		return nil, fmt.Errorf("local/static: a token table of %d bytes for %d × %d, and %d tokens in the vocabulary", len(raw), rows, dim, len(pieces.tokens))
	}
	s := &Static{pieces: pieces, dim: dim, weights: make([]int32, rows)}
	var largest float64
	scale := func(i int) float64 {
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(raw[header+4*i:])))
	}
	for i := range rows {
		largest = max(largest, scale(i))
	}
	for i := range rows {
		s.weights[i] = int32(math.Round(scale(i) / largest * (1 << weightBits)))
	}
	table := raw[header+4*rows:]
	s.rows = unsafe.Slice((*int8)(unsafe.Pointer(unsafe.SliceData(table))), len(table))
	s.sums.New = func() any { v := make([]int64, dim); return &v }
	return s, nil
})

// Name is local/static@ and the beginning of a hash of its weights and vocabulary.
func (s *Static) Name() string { return StaticName + "@" + staticHash }

// Dim is 256.
func (s *Static) Dim() int { return s.dim }

// MaxInput is 0: all of an input counts.
func (s *Static) MaxInput() int { return 0 }

// CountTokens is the number of word pieces, with the two that frame an input.
func (s *Static) CountTokens(input string) int { return CountWordPieces(input) }

const (
	// taskBytes is how much text a goroutine takes at a time, about a third of a millisecond's work: then it lets others run, so that a query never waits
	// behind a batch for longer.
	taskBytes = 8 << 10
	// parallelBytes is from where it is worth to start a second goroutine.
	parallelBytes = 2 * taskBytes
)

// Embed sums the token rows of each input, on all processors where the batch is large. The role makes no difference. It fails only when ctx has ended.
func (s *Static) Embed(ctx context.Context, _ embedder.Role, inputs []string) ([][]float32, error) {
	all := make([]float32, len(inputs)*s.dim)
	out := make([][]float32, len(inputs))
	total := 0
	for i, input := range inputs {
		out[i] = all[i*s.dim : (i+1)*s.dim : (i+1)*s.dim]
		total += len(input)
	}
	var next atomic.Int64 // the first input nobody has taken
	work := func() {
		scratch := scratches.Get().(*scratch)
		defer scratches.Put(scratch)
		sums := s.sums.Get().(*[]int64)
		defer s.sums.Put(sums)
		for done := 0; ctx.Err() == nil; {
			i := int(next.Add(1)) - 1
			if i >= len(inputs) {
				return
			}
			s.embed(ctx, out[i], *sums, scratch, inputs[i])
			if done += len(inputs[i]); done >= taskBytes {
				runtime.Gosched()
				done = 0
			}
		}
	}
	var others sync.WaitGroup
	if total >= parallelBytes {
		for range min(Processors(), len(inputs), total/taskBytes) - 1 {
			others.Go(work)
		}
	}
	work()
	others.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", StaticName, err)
	}
	return out, nil
}

// embed writes an input's vector; nothing if ctx ends meanwhile.
func (s *Static) embed(ctx context.Context, vector []float32, sums []int64, scratch *scratch, input string) {
	clear(sums)
	scratch.encode(s.pieces, input, func(ids []uint16) bool {
		s.sum(sums, ids)
		return ctx.Err() == nil
	})
	var square float64
	for _, v := range sums {
		// The conversions keep the compiler from fusing multiply and add, which would round otherwise on some machines.
		square += float64(float64(v) * float64(v))
	}
	if square == 0 {
		return
	}
	length := math.Sqrt(square)
	for i, v := range sums {
		vector[i] = float32(float64(v) / length)
	}
}

// sum adds the weighted rows of the tokens. Four rows at a time spare most of the traffic to and from sums.
func (s *Static) sum(sums []int64, ids []uint16) {
	dim := s.dim
	row := func(id uint16) ([]int8, int64) {
		at := int(id) * dim
		return s.rows[at : at+dim][:len(sums)], int64(s.weights[id])
	}
	for ; len(ids) >= 4; ids = ids[4:] {
		a, wa := row(ids[0])
		b, wb := row(ids[1])
		c, wc := row(ids[2])
		d, wd := row(ids[3])
		for i := range sums {
			sums[i] += int64(a[i])*wa + int64(b[i])*wb + int64(c[i])*wc + int64(d[i])*wd
		}
	}
	for _, id := range ids {
		a, wa := row(id)
		for i := range sums {
			sums[i] += int64(a[i]) * wa
		}
	}
}
