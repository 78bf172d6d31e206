package mockprovider

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// answer sends vectors, or what the fault makes of them, and tells whether it sent all there is.
func (p *Provider) answer(w http.ResponseWriter, r *http.Request, asked *request, fault string, share float64) bool {
	if p.fail(w, r, fault) {
		return false
	}
	vectors, err := p.cfg.Vectors(r.Context(), asked.dim, asked.inputs)
	if err != nil {
		p.refuse(w, problem{why: failed, status: http.StatusInternalServerError, kind: "server_error", message: err.Error()})
		return false
	}
	order := make([]int, len(vectors))
	for i := range order {
		order[i] = i
	}
	at := min(int(share*float64(len(vectors))), len(vectors)-1)
	spoil := func(change func(v []float32) []float32) { vectors[at] = change(slices.Clone(vectors[at])) }
	model := asked.Model
	switch fault {
	case "length":
		for i := range vectors {
			vectors[i] = vectors[i][:len(vectors[i])-1]
		}
	case "nan":
		spoil(func(v []float32) []float32 { v[int(share*float64(len(v)))] = float32(math.NaN()); return v })
	case "zero":
		spoil(func(v []float32) []float32 { clear(v); return v })
	case "count":
		order = order[:len(order)-1]
	case "shuffle":
		p.mu.Lock()
		p.random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		p.mu.Unlock()
	case "model":
		model = "another-" + model
	}
	body := spell(asked, model, vectors, order, fault != "noindex")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	switch fault {
	case "truncate":
		w.Write(body[:len(body)/2])
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case "drip":
		if !drip(w, r, body, p.cfg.Slow) {
			p.gone()
		}
	default:
		w.Write(body)
	}
	p.count(func(s *Stats) {
		s.Answered++
		s.Inputs += int64(len(asked.inputs))
		s.Tokens += int64(asked.charge)
		s.LastAnswer = time.Since(p.start).Seconds()
	})
	return true
}

// drip sends a body in about a hundred pieces, at one speed.
func drip(w http.ResponseWriter, r *http.Request, body []byte, slow time.Duration) bool {
	const pieces = 100
	for piece := range slices.Chunk(body, max(1, (len(body)+pieces-1)/pieces)) {
		if !sleep(r.Context(), slow*time.Duration(len(piece))/time.Duration(len(body))) {
			return false
		}
		if _, err := w.Write(piece); err != nil {
			return false
		}
		http.NewResponseController(w).Flush()
	}
	return true
}

// spell writes an answer, by hand: package json would be the slowest part of a mock that is to be faster than what it tests, and it has no NaN.
func spell(asked *request, model string, vectors [][]float32, order []int, indexes bool) []byte {
	var b bytes.Buffer
	number := 12
	if asked.Encoding == "base64" {
		number = 6
	}
	b.Grow(256 + len(vectors)*(64+number*asked.dim))
	b.WriteString(`{"object":"list","data":[`)
	var packed []byte
	for n, i := range order {
		if n > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"object":"embedding",`)
		if indexes {
			fmt.Fprintf(&b, `"index":%d,`, i)
		}
		b.WriteString(`"embedding":`)
		if asked.Encoding == "base64" {
			packed = packed[:0]
			for _, x := range vectors[i] {
				packed = binary.LittleEndian.AppendUint32(packed, math.Float32bits(x))
			}
			b.WriteByte('"')
			b.Write(base64.StdEncoding.AppendEncode(b.AvailableBuffer(), packed))
			b.WriteByte('"')
		} else {
			b.WriteByte('[')
			for d, x := range vectors[i] {
				if d > 0 {
					b.WriteByte(',')
				}
				if x != x {
					b.WriteString("NaN") // as Python writes it
					continue
				}
				b.Write(strconv.AppendFloat(b.AvailableBuffer(), float64(x), 'g', -1, 32))
			}
			b.WriteByte(']')
		}
		b.WriteByte('}')
	}
	name, _ := json.Marshal(model)
	fmt.Fprintf(&b, `],"model":%s,"usage":{"prompt_tokens":%d,"total_tokens":%d}}`, name, asked.charge, asked.charge)
	return b.Bytes()
}
