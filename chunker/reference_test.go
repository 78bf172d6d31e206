package chunker

import (
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
			spans := map[string][][2]int{}
			for _, chunk := range want.Chunks {
				corpus := chunk[0].(string)
				spans[corpus] = append(spans[corpus], [2]int{int(chunk[3].(float64)), int(chunk[4].(float64))})
			}
			equal, total := 0, 0
			for corpus, want := range spans {
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
				got := map[[2]int]bool{}
				chunks := c.Split("text/plain", text)
				for _, c := range chunks {
					got[[2]int{points[c.Start], points[c.End]}] = true
				}
				for _, span := range want {
					total++
					if got[span] {
						equal++
					} else if total-equal <= 10 {
						t.Errorf("%s: no chunk of code points %v", corpus, span)
					}
				}
				if len(chunks) != len(want) {
					t.Errorf("%s: %d chunks, want %d", corpus, len(chunks), len(want))
				}
			}
			t.Logf("%d of %d spans are equal", equal, total)
		})
	}
}
