package mockprovider

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/liverag/liverag/embedder"
)

// BenchmarkHandler is requests of 64 inputs of 800 bytes, of 384 dimensions, from many at once, with limits that are counted but never reached: with vectors that are there
// already, which is what the provider itself takes, and with those of word hashes, as the verb has them.
func BenchmarkHandler(b *testing.B) {
	const dim = 384
	inputs := make([]string, 64)
	ready := make([][]float32, len(inputs))
	for i := range inputs {
		inputs[i] = strings.Repeat(fmt.Sprintf("chunk %d of a document, ", i), 36)[:800]
		ready[i] = make([]float32, dim)
		for d := range ready[i] {
			ready[i][d] = rand.Float32() - 0.5
		}
	}
	hash := embedder.NewHash(dim)
	for name, vectors := range map[string]func(context.Context, int, []string) ([][]float32, error){
		"ready": func(context.Context, int, []string) ([][]float32, error) { return ready, nil },
		"hash": func(ctx context.Context, _ int, inputs []string) ([][]float32, error) {
			return hash.Embed(ctx, embedder.Index, inputs)
		},
	} {
		for _, encoding := range []string{"base64", "float"} {
			asked, err := json.Marshal(map[string]any{"model": "m", "input": inputs, "encoding_format": encoding})
			if err != nil {
				b.Fatal(err)
			}
			body := string(asked)
			b.Run(name+"-"+encoding, func(b *testing.B) {
				p, err := New(Config{Vectors: vectors, Dim: dim, RPM: 1e9, TPM: 1e15})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						w := httptest.NewRecorder()
						p.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/embeddings", strings.NewReader(body)))
						if w.Code != http.StatusOK {
							b.Error(w.Code, w.Body)
							return
						}
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
				b.ReportMetric(float64(b.N*len(inputs))/b.Elapsed().Seconds(), "inputs/s")
			})
		}
	}
}
