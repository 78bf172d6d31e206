package chunker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// sharedDir is where the evaluation data is; tests that need it are skipped without.
func sharedDir(t testing.TB) string {
	dir := os.Getenv("LIVERAG_SHARED")
	if dir == "" {
		t.Skip("LIVERAG_SHARED is not set: no evaluation data")
	}
	return dir
}

// referenceFile is a run of the published chunking evaluation; of its fields these say where it cut.
type referenceFile struct {
	Size    int
	Overlap int
	Chunks  [][]any // corpus, start, end (of the text's first occurrence), start, end (true), hash; in code points
}

// TestReferenceSpans holds recursive and token to where the published evaluation's splitters cut, to the code point.
func TestReferenceSpans(t *testing.T) {
	dir := filepath.Join(sharedDir(t), "data/chroma-chunking")
	for file, strategy := range map[string]string{"R_200_0": Recursive, "R_400_200": Recursive, "T_800_400": Token} {
		t.Run(file, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(dir, "reference/fp32", file+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var want referenceFile
			if err := json.Unmarshal(data, &want); err != nil {
				t.Fatal(err)
			}
			c, err := New(Options{Strategy: strategy, Tokens: want.Size, Overlap: want.Overlap})
			if err != nil {
				t.Fatal(err)
			}
			chunks := map[string][][]any{}
			for _, chunk := range want.Chunks {
				corpus := chunk[0].(string)
				chunks[corpus] = append(chunks[corpus], chunk)
			}
			for corpus, want := range chunks {
				data, err := os.ReadFile(filepath.Join(dir, "corpora", corpus+".md"))
				if err != nil {
					t.Fatal(err)
				}
				text := string(data)
				points := make([]int, len(text)+1) // code points before a byte
				n := 0
				for i := range text {
					points[i] = n
					n++
				}
				points[len(text)] = n
				got := c.Split("text/plain", text)
				if len(got) != len(want) {
					t.Fatalf("%s: %d chunks, want %d", corpus, len(got), len(want))
				}
				misplaced := 0
				for i, chunk := range got {
					hash := sha256.Sum256([]byte(text[chunk.Start:chunk.End]))
					if hex.EncodeToString(hash[:8]) != want[i][5] {
						t.Fatalf("%s: chunk %d, %v, has another text than the reference's, %v", corpus, i, chunk, want[i])
					}
					if points[chunk.Start] != int(want[i][3].(float64)) || points[chunk.End] != int(want[i][4].(float64)) {
						misplaced++
					}
				}
				// The reference looked its chunks up by their text, which found three short ones inside the chunk before them.
				if misplaced > 2 {
					t.Errorf("%s: %d of %d chunks have the reference's text elsewhere", corpus, misplaced, len(got))
				}
				t.Logf("%s: %d chunks equal, %d of them with another offset in the reference", corpus, len(got), misplaced)
			}
		})
	}
}
