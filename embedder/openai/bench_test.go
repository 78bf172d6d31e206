package openai_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	client "github.com/sashabaranov/go-openai"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/openai"
	"github.com/liverag/liverag/internal/mockprovider"
)

// canned answers every request for embeddings as the mock answered the first, so that the client is what is measured.
func canned(b *testing.B, inputs []string, dim int, encoding string) http.Handler {
	b.Helper()
	asked, err := json.Marshal(map[string]any{"model": "mock", "input": inputs, "encoding_format": encoding})
	if err != nil {
		b.Fatal(err)
	}
	w := httptest.NewRecorder()
	mock(b, mockprovider.Config{Dim: dim}).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/embeddings", bytes.NewReader(asked)))
	answer := w.Body.Bytes()
	first := true
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if first { // it opens the model
			first = false
			says(http.StatusServiceUnavailable, "")(w, r)
			return
		}
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
		w.Write(answer)
	})
}

// BenchmarkEmbed is requests of 64 inputs of 800 bytes over loopback: through the adapter, through go-openai alone, and by a bare loop of net/http that reads the
// answer and looks at nothing.
func BenchmarkEmbed(b *testing.B) {
	const dim = 1536
	inputs := make([]string, 64)
	for i := range inputs {
		inputs[i] = strings.Repeat(fmt.Sprintf("chunk %d of a document, ", i), 36)[:800]
	}
	rate := func(b *testing.B) {
		b.ReportAllocs()
		b.ReportMetric(float64(b.N*len(inputs))/b.Elapsed().Seconds(), "inputs/s")
	}
	for _, encoding := range []string{openai.Base64, openai.Float} {
		s := httptest.NewServer(canned(b, inputs, dim, encoding))
		defer s.Close()
		b.Run("adapter-"+encoding, func(b *testing.B) {
			m, err := openai.Open(b.Context(), openai.Config{Model: "mock", BaseURL: s.URL + "/v1", Dim: dim, MaxInput: -1, MaxBatch: 64, Encoding: encoding, Logger: quiet})
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close()
			for b.Loop() {
				if _, err := m.Embed(b.Context(), embedder.Index, inputs); err != nil {
					b.Fatal(err)
				}
			}
			rate(b)
		})
		b.Run("bare-"+encoding, func(b *testing.B) {
			for b.Loop() {
				body, err := json.Marshal(map[string]any{"model": "mock", "input": inputs, "encoding_format": encoding})
				if err != nil {
					b.Fatal(err)
				}
				res, err := http.Post(s.URL+"/v1/embeddings", "application/json", bytes.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					b.Fatal(err)
				}
				res.Body.Close()
			}
			rate(b)
		})
		b.Run("go-openai-"+encoding, func(b *testing.B) {
			c := client.DefaultConfig("")
			c.BaseURL = s.URL + "/v1"
			through := client.NewClientWithConfig(c)
			for b.Loop() {
				res, err := through.CreateEmbeddings(b.Context(), client.EmbeddingRequestStrings{Model: "mock", Input: inputs, EncodingFormat: client.EmbeddingEncodingFormat(encoding)})
				if err != nil || len(res.Data) != len(inputs) {
					b.Fatal(err)
				}
			}
			rate(b)
		})
	}
}

var _ embedder.Tokenizer = (*openai.Model)(nil)
