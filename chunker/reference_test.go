package chunker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/liverag/liverag/embedder/local"
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
	Chunker string
	Size    int
	Overlap int
	Chunks  []referenceChunk
}

// referenceChunk is a chunk as the reference writes it: an array of the corpus, where the text's first occurrence starts and ends, where
// the chunk itself does, all in code points, and half of the SHA-256 of its text in hex.
type referenceChunk struct {
	corpus     string
	start, end int
	hash       string
}

func (c *referenceChunk) UnmarshalJSON(data []byte) error {
	var foundStart, foundEnd int
	fields := []any{&c.corpus, &foundStart, &foundEnd, &c.start, &c.end, &c.hash}
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	if len(fields) != 6 {
		return fmt.Errorf("a chunk has %d fields, not 6", len(fields))
	}
	return nil
}

// options are what makes our chunker cut as the file's did. The reference gives a chunk tokens below its size, and says in words what it
// counts; a kind of chunker that is not known here must not pass unseen.
func (f *referenceFile) options() (Options, error) {
	o := Options{Tokens: f.Size, Overlap: f.Overlap}
	name, length, _ := strings.Cut(f.Chunker, ", length = ")
	switch name {
	case "RecursiveTokenChunker":
		o.Strategy = Recursive
	case "FixedTokenChunker":
		o.Strategy = Token
	default:
		return o, fmt.Errorf("chunker %q is unknown", f.Chunker)
	}
	switch length {
	case "":
		o.Tokenizer = CL100K
	case "MiniLM WordPiece tokens incl. [CLS]/[SEP]":
		o.Tokenizer, o.Counter = MiniLM, wordPieces{}
	default:
		return o, fmt.Errorf("length %q is unknown", length)
	}
	return o, nil
}

// wordPieces counts for the tokenizer minilm, as the program does.
type wordPieces struct{}

func (wordPieces) Count(text string) int { return local.CountWordPieces(text) }

// TestReferenceSpans holds recursive and token to where the published evaluation's splitters cut, to the code point: every file of
// the reference, whatever its model was.
func TestReferenceSpans(t *testing.T) {
	dir := filepath.Join(sharedDir(t), "data/chroma-chunking")
	files, err := filepath.Glob(filepath.Join(dir, "reference/*/*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no reference files: %v", err)
	}
	type corpus struct {
		text    string
		points  []int // code points before a byte
		offsets []int // where a code point starts
	}
	corpora := map[string]corpus{}
	read := func(name string) corpus {
		if c, ok := corpora[name]; ok {
			return c
		}
		data, err := os.ReadFile(filepath.Join(dir, "corpora", name+".md"))
		if err != nil {
			t.Fatal(err)
		}
		c := corpus{text: string(data), points: make([]int, len(data)+1)}
		n := 0
		for i := range c.text {
			c.points[i] = n
			c.offsets = append(c.offsets, i)
			n++
		}
		c.points[len(data)] = n
		corpora[name] = c
		return c
	}
	// Models of one chunker differ in what they find only, so a corpus is cut once for all of them.
	type cutting struct{ chunker, corpus string }
	cut := map[cutting][]referenceChunk{}
	split := func(c pure, name string) []referenceChunk {
		key := cutting{c.Name(), name}
		if chunks, ok := cut[key]; ok {
			return chunks
		}
		corpus := read(name)
		var chunks []referenceChunk
		for _, chunk := range c.split("text/plain", corpus.text) {
			hash := sha256.Sum256([]byte(corpus.text[chunk.Start:chunk.End]))
			chunks = append(chunks, referenceChunk{name, corpus.points[chunk.Start], corpus.points[chunk.End], hex.EncodeToString(hash[:8])})
		}
		cut[key] = chunks
		return chunks
	}
	for _, file := range files {
		name, _ := filepath.Rel(filepath.Join(dir, "reference"), file)
		t.Run(strings.TrimSuffix(filepath.ToSlash(name), ".json"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var reference referenceFile
			if err := json.Unmarshal(data, &reference); err != nil {
				t.Fatal(err)
			}
			options, err := reference.options()
			if err != nil {
				t.Fatal(err)
			}
			c := newChunker(t, options)
			wanted := map[string][]referenceChunk{}
			for _, chunk := range reference.Chunks {
				wanted[chunk.corpus] = append(wanted[chunk.corpus], chunk)
			}
			if len(wanted) < 5 {
				t.Errorf("chunks of %d corpora, want all five", len(wanted))
			}
			for name, want := range wanted {
				got := split(c, name)
				if len(got) != len(want) {
					t.Errorf("%s: %d chunks, want %d", name, len(got), len(want))
				}
				text := read(name)
				misplaced := 0
				for i := range min(len(got), len(want)) {
					if got[i].hash != want[i].hash {
						t.Errorf("%s: chunk %d, %+v, has another text than the reference's, %+v", name, i, got[i], want[i])
						break
					}
					if got[i] == want[i] {
						continue
					}
					// The reference's splitter gives texts. Where they are was looked up, from behind the previous chunk's start on: that finds a
					// text which occurs in its predecessor too, such as a lone full stop, too early.
					misplaced++
					if i == 0 {
						t.Fatalf("%s: the first chunk is %+v, want %+v", name, got[i], want[i])
					}
					from := text.offsets[want[i-1].start+1]
					chunk := text.text[text.offsets[got[i].start]:text.offsets[got[i].end]]
					if at := strings.Index(text.text[from:], chunk); at < 0 || text.points[from+at] != want[i].start {
						t.Errorf("%s: chunk %d is %+v, want %+v", name, i, got[i], want[i])
					}
				}
				t.Logf("%s: %d chunks, %d of them looked up too early by the reference", name, len(got), misplaced)
			}
		})
	}
}
