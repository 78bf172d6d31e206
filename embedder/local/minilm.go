package local

import (
	"context"
	_ "embed"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/simd"
)

// miniLMFile is the weights of local/minilm, made by make-minilm.py, which describes their layout. The kernels read them where they are.
//
//go:embed minilm.bin
var miniLMFile string

// miniLMHash begins the SHA-256 of everything that decides a vector: minilm.bin, vocab.txt, unicode.txt. A test holds it to them.
const miniLMHash = "e12cb29f"

// miniLMPieces is the longest input in word pieces, with the two that frame it: the model was trained on no longer ones.
const miniLMPieces = 256

// MiniLM is local/minilm: all-MiniLM-L6-v2 (Reimers and Gurevych, "Sentence-BERT", 2019; Wang et al., "MiniLM", 2020), a transformer of 6 layers with weights of 8 bits. A text's vector
// is the mean of its tokens' outputs, scaled to unit length. Its cosine to what the original weights give is .9994 in the mean.
//
// It reads the first 256 word pieces of an input, the two that frame it included. A text without a word piece gives the zero vector. A text's vector does not depend, to the last bit, on what is
// embedded beside it; other processors may round its last digits otherwise.
//
// All calls share the processors. Work is done in units of about a millisecond, and the most urgent call takes the next one: questions on the Live lane, then documents on it, then the Replay lane, then Backfill.
// A call of many inputs uses all processors.
type MiniLM struct {
	pieces  *wordPiece
	weights *weights
	gate    *gate
	rooms   sync.Pool // of *room
}

// NewMiniLM opens local/minilm. The weights are in the binary, so only a binary that was tampered with fails.
func NewMiniLM() (*MiniLM, error) {
	return miniLMOnce()
}

var miniLMOnce = sync.OnceValues(func() (*MiniLM, error) {
	w, err := readWeights(miniLMFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", MiniLMName, err)
	}
	pieces := wordPieces()
	if w.tokens != len(pieces.tokens) || w.positions < miniLMPieces {
		return nil, fmt.Errorf("%s: weights for %d tokens and %d positions, and %d tokens in the vocabulary", MiniLMName, w.tokens, w.positions, len(pieces.tokens))
	}
	m := &MiniLM{pieces: pieces, weights: w, gate: newGate(Processors)}
	m.rooms.New = func() any { return newRoom(w) }
	return m, nil
})

// Name is local/minilm@ and the beginning of a hash of its weights and vocabulary.
func (m *MiniLM) Name() string { return MiniLMName + "@" + miniLMHash }

// Dim is 384.
func (m *MiniLM) Dim() int { return m.weights.width }

// MaxInput is 256 word pieces.
func (m *MiniLM) MaxInput() int { return miniLMPieces }

// Truncates implements [embedder.Truncater]: of a longer input the model reads the first MaxInput word pieces.
func (m *MiniLM) Truncates() {}

// CountTokens is the number of word pieces, with the two that frame an input.
func (m *MiniLM) CountTokens(input string) int { return CountWordPieces(input) }

// packRows is how many tokens go through a layer together: many enough to read weights seldom, few enough to fit the processor's cache and to share out a small call.
const (
	packRows      = miniLMPieces
	packRowsLeast = 64
)

// text is an input on its way.
type text struct {
	ids    []uint16
	vector []float32
}

// Embed runs the model over each input. The role makes no difference to the vectors, only to who goes first. It fails only when ctx has ended.
func (m *MiniLM) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	dim := m.Dim()
	all := make([]float32, len(inputs)*dim)
	out := make([][]float32, len(inputs))
	texts := make([]text, 0, len(inputs))
	ids := make([]uint16, 0, 32*len(inputs))
	rows := 0
	for i, input := range inputs {
		out[i] = all[i*dim : (i+1)*dim : (i+1)*dim]
		if ctx.Err() != nil {
			break
		}
		from := len(ids)
		if ids = m.encode(ids, input); len(ids)-from > 2 {
			texts = append(texts, text{ids: ids[from:len(ids):len(ids)], vector: out[i]})
			rows += len(ids) - from
		}
	}
	slots := m.gate.slots()
	packs := pack(texts, min(packRows, max(packRowsLeast, (rows+slots-1)/slots)))

	urgency := urgencyOf(role, embedder.LaneOf(ctx))
	var next atomic.Int64 // the first pack nobody has taken
	work := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(packs) || m.run(ctx, urgency, packs[i]) != nil {
				return
			}
		}
	}
	var others sync.WaitGroup
	for range min(slots, len(packs)) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", MiniLMName, err)
	}
	return out, nil
}

// encode appends an input's word pieces in their frame, as many as the model reads.
func (m *MiniLM) encode(ids []uint16, input string) []uint16 {
	scratch := scratches.Get().(*scratch)
	defer scratches.Put(scratch)
	ids = append(ids, classifyID)
	left := miniLMPieces - 2
	scratch.encode(m.pieces, input, func(more []uint16) bool {
		more = more[:min(len(more), left)]
		ids = append(ids, more...)
		left -= len(more)
		return left > 0
	})
	return append(ids, separatorID)
}

// pack puts neighbours together, as many as have no more tokens than that; a longer one goes alone.
func pack(texts []text, most int) [][]text {
	var packs [][]text
	rows := 0
	for i := range texts {
		n := len(texts[i].ids)
		if i == 0 || rows+n > most {
			packs = append(packs, texts[i:i:len(texts)])
			rows = 0
		}
		last := &packs[len(packs)-1]
		*last = (*last)[:len(*last)+1]
		rows += n
	}
	return packs
}

// run takes a pack through the model, between others' units.
func (m *MiniLM) run(ctx context.Context, urgency urgency, texts []text) error {
	turn, err := m.gate.enter(ctx, urgency)
	if err != nil {
		return err
	}
	defer turn.leave()
	room := m.rooms.Get().(*room)
	defer m.rooms.Put(room)
	return room.forward(m.weights, texts, turn.pass)
}

// room is what a pack needs on its way through the model.
type room struct {
	x      []float32 // [rows][width]: what goes from layer to layer
	codes  []int16   // [rows][width]: x for the next matrix
	scales []float32 // [rows]
	qkv    []float32 // [3 width/32][rows][32]: query, key and value of each head
	keys   []float32 // [heads][32][tokens]: one text's keys, transposed
	scores []float32 // [scoreRows][tokens]
	mixed  []float32 // [rows][width]: what attention found

	// For the rows of a unit.
	y      []float32 // [unitRows][width]
	wide   []float32 // [unitRows][hidden]
	wCodes []int16   // [unitRows][hidden]
	wScale []float32 // [unitRows]
}

const (
	// unitRows is how many tokens pass the matrices of a layer in one unit of work, and slowRows where there are no vector instructions.
	unitRows = 56
	slowRows = 8
	// scoreRows is how many queries meet all keys at a time, so that their scores stay in the nearest cache.
	scoreRows = 24
)

func newRoom(w *weights) *room {
	return &room{
		x: make([]float32, packRows*w.width), codes: make([]int16, packRows*w.width), scales: make([]float32, packRows),
		qkv: make([]float32, 3*packRows*w.width), keys: make([]float32, w.width*miniLMPieces), scores: make([]float32, scoreRows*miniLMPieces),
		mixed: make([]float32, packRows*w.width),
		y:     make([]float32, unitRows*w.width), wide: make([]float32, unitRows*w.hidden),
		wCodes: make([]int16, unitRows*w.hidden), wScale: make([]float32, unitRows),
	}
}

// headWidth is the numbers of a token that an attention head sees.
const headWidth = 32

// forward writes the vectors of some texts. It calls pass between units of work, and stops with its error.
func (r *room) forward(w *weights, texts []text, pass func() error) error {
	rows := 0
	for _, t := range texts {
		n := len(t.ids)
		x := r.x[rows*w.width:][:n*w.width]
		for i, id := range t.ids {
			w.token(x[i*w.width:][:w.width], id)
		}
		simd.AddNorm(x, w.places[:n*w.width], w.norm.gain, w.norm.bias)
		rows += n
	}
	x := r.x[:rows*w.width]
	simd.Encode(r.codes, r.scales, x, w.width)
	unit := unitRows
	if simd.Kernel() == "go" {
		unit = slowRows
	}
	for l := range w.layers {
		layer := &w.layers[l]
		for from := 0; from < rows; from += unit {
			to := min(from+unit, rows)
			layer.qkv.Mul(r.qkv[from*headWidth:], headWidth, rows*headWidth, r.codes[from*w.width:], r.scales[from:to])
			if err := pass(); err != nil {
				return err
			}
		}
		for from, i := 0, 0; i < len(texts); i++ {
			to := from + len(texts[i].ids)
			if err := r.attend(w, rows, from, to, pass); err != nil {
				return err
			}
			from = to
		}
		for from := 0; from < rows; from += unit {
			r.rest(w, layer, from, min(from+unit, rows))
			if err := pass(); err != nil {
				return err
			}
		}
	}
	for _, t := range texts {
		n := len(t.ids) * w.width
		mean(t.vector, x[:n])
		x = x[n:]
	}
	return nil
}

// attend mixes the values of a text, rows from up to to of all: each token's are weighted by how its query meets the others' keys.
func (r *room) attend(w *weights, rows, from, to int, pass func() error) error {
	n := to - from
	padded := (n + 31) &^ 31
	for h := range w.heads {
		part := func(which int) []float32 { return r.qkv[((which*w.heads+h)*rows+from)*headWidth:][:n*headWidth] }
		query, key, value := part(0), part(1), part(2)
		simd.Transpose(r.keys, padded, key, n)
		for at := 0; at < n; at += scoreRows {
			some := min(scoreRows, n-at)
			scores := r.scores[:some*padded]
			simd.Product(scores, padded, query[at*headWidth:], headWidth, r.keys, padded, some, padded, headWidth)
			simd.Softmax(scores, padded, n)
			simd.Product(r.mixed[(from+at)*w.width+h*headWidth:], w.width, scores, padded, value, headWidth, some, headWidth, n)
		}
		if err := pass(); err != nil {
			return err
		}
	}
	return nil
}

// rest is what a layer does with each token by itself.
func (r *room) rest(w *weights, layer *layer, from, to int) {
	n := to - from
	x, y := r.x[from*w.width:to*w.width], r.y[:n*w.width]
	codes, scales := r.codes[from*w.width:to*w.width], r.scales[from:to]
	wide, wCodes, wScale := r.wide[:n*w.hidden], r.wCodes[:n*w.hidden], r.wScale[:n]

	simd.Encode(codes, scales, r.mixed[from*w.width:to*w.width], w.width)
	layer.out.Mul(y, w.width, 32, codes, scales)
	simd.AddNorm(x, y, layer.outNorm.gain, layer.outNorm.bias)

	simd.Encode(codes, scales, x, w.width)
	layer.up.Mul(wide, w.hidden, 32, codes, scales)
	simd.Gelu(wide)
	simd.Encode(wCodes, wScale, wide, w.hidden)
	layer.down.Mul(y, w.width, 32, wCodes, wScale)
	simd.AddNorm(x, y, layer.downNorm.gain, layer.downNorm.bias)
	simd.Encode(codes, scales, x, w.width)
}

// mean sets vector to the mean of the rows, scaled to unit length.
func mean(vector, rows []float32) {
	for len(rows) > 0 {
		for i, v := range rows[:len(vector)] {
			vector[i] += v
		}
		rows = rows[len(vector):]
	}
	var square float64
	for _, v := range vector {
		square += float64(float64(v) * float64(v))
	}
	if square == 0 {
		return
	}
	length := math.Sqrt(square)
	for i, v := range vector {
		vector[i] = float32(float64(v) / length)
	}
}
