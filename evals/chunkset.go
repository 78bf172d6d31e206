package evals

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/stream"
)

// ChunkingSet is texts with questions whose answers are known as excerpts of them.
type ChunkingSet struct {
	Set       Set
	Sources   []Source
	Questions []ChunkingQuestion
}

// Source is one text of a set.
type Source struct {
	// Name is the file's, without its ending.
	Name string
	// Text is valid UTF-8.
	Text string
	// points are, for each byte, how many code points are before it.
	points []int32
}

// ChunkingQuestion is a question about one source.
type ChunkingQuestion struct {
	ID    string
	Query string
	ExcerptQuestion
	// Texts are the excerpts'.
	Texts []string
}

// OpenChunkingSet reads dir/corpora/*.md and dir/questions.jsonl, a JSON object a line:
//
//	{"id": …, "corpus": "finance", "question": "…", "references": [{"text": "…", "start": 17, "end": 42}]}
//
// start and end count code points, and the text must be what is there; without them the first place of the text counts.
// Other fields are ignored. A question without an id gets the number of its line.
func OpenChunkingSet(dir string) (*ChunkingSet, error) {
	files, err := filepath.Glob(filepath.Join(dir, "corpora", "*.md"))
	if err != nil {
		return nil, fmt.Errorf("open set: %w", err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("open set: there is no %s", filepath.Join(dir, "corpora", "*.md"))
	}
	set := &ChunkingSet{Set: Set{Name: baseName(dir)}}
	digest := sha256.New()
	for _, file := range files { // Glob sorts them
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("open set: %w", err)
		}
		if !utf8.Valid(content) {
			return nil, fmt.Errorf("open set: %s is not valid UTF-8", file)
		}
		s := Source{Name: strings.TrimSuffix(filepath.Base(file), ".md"), Text: string(content), points: make([]int32, len(content)+1)}
		var n int32
		for i := range len(content) {
			s.points[i] = n
			if i+1 == len(content) || utf8.RuneStart(content[i+1]) {
				n++
			}
		}
		s.points[len(content)] = n
		set.Sources = append(set.Sources, s)
		fmt.Fprintf(digest, "%q %x\n", s.Name, sha256.Sum256(content))
	}
	name := filepath.Join(dir, "questions.jsonl")
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open set: %w", err)
	}
	defer f.Close()
	if err := set.readQuestions(io.TeeReader(f, digest), "questions.jsonl"); err != nil {
		return nil, err
	}
	set.Set.Digest = hex.EncodeToString(digest.Sum(nil)[:8])
	return set, nil
}

// baseName names a set by the last part of its path.
func baseName(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return strings.TrimSuffix(filepath.Base(path), ".jsonl")
}

func (s *ChunkingSet) readQuestions(r io.Reader, name string) error {
	ids := make(map[string]bool)
	for line, err := range readLines(r, name) {
		if err != nil {
			return err
		}
		var q struct {
			ID         json.RawMessage `json:"id"`
			Corpus     string          `json:"corpus"`
			Question   string          `json:"question"`
			References []struct {
				Text       string `json:"text"`
				Start, End *int
			} `json:"references"`
		}
		if err := line.decode(&q); err != nil {
			return err
		}
		id := strings.Trim(string(q.ID), `"`) // a number or a string
		if id == "" || id == "null" {
			id = strconv.Itoa(line.number)
		}
		at := slices.IndexFunc(s.Sources, func(source Source) bool { return source.Name == q.Corpus })
		switch {
		case ids[id]:
			return line.errorf("question %s is there twice", id)
		case q.Question == "":
			return line.errorf(`no "question"`)
		case len(q.References) == 0:
			return line.errorf(`no "references": the question has no answer`)
		case at < 0:
			return line.errorf("there is no corpora/%s.md", q.Corpus)
		}
		ids[id] = true
		question := ChunkingQuestion{ID: id, Query: q.Question}
		for i, reference := range q.References {
			span, err := s.Sources[at].excerpt(reference.Text, reference.Start, reference.End)
			if err != nil {
				return line.errorf("reference %d: %w", i+1, err)
			}
			question.Excerpts = append(question.Excerpts, span)
			question.Texts = append(question.Texts, reference.Text)
		}
		s.Questions = append(s.Questions, question)
	}
	if len(s.Questions) == 0 {
		return fmt.Errorf("%s: no questions in it", name)
	}
	return nil
}

// excerpt finds a reference in the source.
func (s *Source) excerpt(text string, start, end *int) (Span, error) {
	if text == "" {
		return Span{}, fmt.Errorf(`no "text"`)
	}
	if start == nil || end == nil {
		i := strings.Index(s.Text, text)
		if i < 0 {
			return Span{}, fmt.Errorf("%q is not in corpora/%s.md", shorten(text), s.Name)
		}
		return s.span(i, i+len(text)), nil
	}
	from, _ := slices.BinarySearch(s.points, int32(*start))
	to, _ := slices.BinarySearch(s.points, int32(*end))
	if *start < 0 || *end < *start || to >= len(s.points) || s.Text[from:to] != text {
		return Span{}, fmt.Errorf("corpora/%s.md has another text than %q at code points %d to %d", s.Name, shorten(text), *start, *end)
	}
	return Span{s.Name, *start, *end}, nil
}

// span is a byte range of the source as code points.
func (s *Source) span(start, end int) Span {
	return Span{s.Name, int(s.points[start]), int(s.points[end])}
}

// shorten cuts a text for a message.
func shorten(text string) string {
	const most = 60
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most]) + "…"
}

// Cut is a chunk of a source.
type Cut struct {
	// Source is its index in the set.
	Source int
	chunker.Chunk
}

// ChunkingOptions says how chunks are evaluated. The zero value retrieves 5 chunks a question.
type ChunkingOptions struct {
	// K is how many chunks each question retrieves. Defaults to 5.
	K int
	// Progress, if not nil, is told how many of all texts are embedded.
	Progress func(done, of int)
}

// ChunkingRun is what a way to cut, and a model, did with a set.
type ChunkingRun struct {
	Chunks []Cut
	// Answers are in the order of the set's questions.
	Answers []ChunkingAnswer
	// Mean and Deviation are over all questions; the deviation is the population's. They are Chroma's figures: a chunk is
	// taken to be where its text occurs first.
	Mean, Deviation ChunkingScore
	// Exact and ExactDeviation are the same with every chunk where it really is.
	Exact, ExactDeviation ChunkingScore
	// Cutting and Embedding are how long these took; Embedding is short where vectors were cached.
	Cutting, Embedding time.Duration
}

// ChunkingAnswer is what was retrieved for a question.
type ChunkingAnswer struct {
	// Retrieved are indexes of chunks, best first.
	Retrieved []int
	// Similarities are their cosines.
	Similarities []float32
	// Score is Chroma's, Exact the same with every chunk where it really is.
	Score, Exact ChunkingScore
}

// MeanTokens is how long a chunk is on average, in the chunker's tokenizer.
func (r *ChunkingRun) MeanTokens() float64 {
	if len(r.Chunks) == 0 {
		return 0
	}
	var sum int
	for _, c := range r.Chunks {
		sum += c.Tokens
	}
	return float64(sum) / float64(len(r.Chunks))
}

// Run cuts and embeds all sources, retrieves the chunks nearest to each question out of all of them by exact cosine
// similarity, and scores them.
//
// Like the published evaluation it retrieves over all sources together, and takes a chunk to be where its text, without a
// full stop at its end, occurs in the source for the first time; repeated text is so misplaced. Figures with the true
// places come beside. Offsets are code points.
func (s *ChunkingSet) Run(ctx context.Context, cut chunker.Chunker, model embedder.Embedder, options ChunkingOptions) (*ChunkingRun, error) {
	if options.K <= 0 {
		options.K = 5
	}
	begun := time.Now()
	cuts, err := s.cut(ctx, cut)
	if err != nil {
		return nil, err
	}
	run := &ChunkingRun{Chunks: cuts.chunks, Cutting: time.Since(begun)}
	if len(run.Chunks) == 0 {
		return nil, errors.New("evaluate chunks: there are none: the texts are empty")
	}
	questions := make([]string, len(s.Questions))
	for i, q := range s.Questions {
		questions[i] = q.Query
	}
	begun = time.Now()
	done := 0
	embed := func(role embedder.Role, texts []string) ([][]float32, error) {
		const step = 128 // so that progress is seen; a model makes its own batches of them
		var vectors [][]float32
		for part := range slices.Chunk(texts, step) {
			got, err := model.Embed(ctx, role, part)
			if err != nil {
				return nil, fmt.Errorf("evaluate chunks: %w", err)
			}
			vectors = append(vectors, got...)
			done += len(part)
			if options.Progress != nil {
				options.Progress(done, len(cuts.inputs)+len(questions))
			}
		}
		return vectors, nil
	}
	chunkVectors, err := embed(embedder.Index, cuts.inputs)
	if err != nil {
		return nil, err
	}
	questionVectors, err := embed(embedder.Query, questions)
	if err != nil {
		return nil, err
	}
	run.Embedding = time.Since(begun)

	run.Answers = make([]ChunkingAnswer, len(s.Questions))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for i, q := range s.Questions {
		group.Go(func() error {
			a := &run.Answers[i]
			a.Retrieved, a.Similarities = nearest(questionVectors[i], chunkVectors, options.K)
			cuts.score(q.ExcerptQuestion, a)
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	run.Summarise()
	return run, nil
}

// cuts are all sources, cut.
type cuts struct {
	chunks []Cut
	inputs []string
	// found and exact are the chunks' spans in code points: where their texts occur first, and where they are.
	found, exact []Span
}

func (s *ChunkingSet) cut(ctx context.Context, with chunker.Chunker) (out cuts, err error) {
	for i := range s.Sources {
		source := &s.Sources[i]
		chunks, err := with.Split(ctx, stream.TextMarkdown, source.Text)
		if err != nil {
			return out, fmt.Errorf("cut corpora/%s.md: %w", source.Name, err)
		}
		for _, c := range chunks {
			out.chunks = append(out.chunks, Cut{i, c})
			out.inputs = append(out.inputs, c.Input(source.Text))
			text := strings.TrimSuffix(source.Text[c.Start:c.End], ".")
			at := strings.Index(source.Text, text)
			out.found = append(out.found, source.span(at, at+len(text)))
			out.exact = append(out.exact, source.span(c.Start, c.End))
		}
	}
	return out, nil
}

// score scores what was retrieved for a question.
func (c *cuts) score(q ExcerptQuestion, a *ChunkingAnswer) {
	a.Score, a.Exact = ScoreChunking(q, c.found, a.Retrieved), ScoreChunking(q, c.exact, a.Retrieved)
}

// Summarise computes the means and deviations from the answers.
func (r *ChunkingRun) Summarise() {
	r.Mean, r.Deviation = summarise(r.Answers, func(a *ChunkingAnswer) *ChunkingScore { return &a.Score })
	r.Exact, r.ExactDeviation = summarise(r.Answers, func(a *ChunkingAnswer) *ChunkingScore { return &a.Exact })
}

// nearest returns the k vectors with the greatest cosine similarity, best first; equal ones in their order. Vectors have unit
// length, or are zero: those are never found.
func nearest(query []float32, vectors [][]float32, k int) (indexes []int, similarities []float32) {
	for i, v := range vectors {
		similarity, zero := dot(query, v)
		if zero || len(indexes) == k && similarity <= similarities[k-1] {
			continue
		}
		at := len(indexes)
		for at > 0 && similarities[at-1] < similarity {
			at--
		}
		indexes, similarities = slices.Insert(indexes, at, i), slices.Insert(similarities, at, similarity)
		if len(indexes) > k {
			indexes, similarities = indexes[:k], similarities[:k]
		}
	}
	return indexes, similarities
}

// dot is the inner product; zero tells that b has no direction.
func dot(a, b []float32) (product float32, zero bool) {
	var p, norm [4]float32
	i := 0
	for ; i+4 <= len(a) && i+4 <= len(b); i += 4 {
		x, y := a[i:i+4:i+4], b[i:i+4:i+4]
		for j := range 4 {
			p[j] += x[j] * y[j]
			norm[j] += y[j] * y[j]
		}
	}
	for ; i < len(a) && i < len(b); i++ {
		p[0] += a[i] * b[i]
		norm[0] += b[i] * b[i]
	}
	return p[0] + p[1] + p[2] + p[3], norm[0]+norm[1]+norm[2]+norm[3] == 0
}

// summarise gives the mean and the population's standard deviation of scores. Containing stays 0.
func summarise(answers []ChunkingAnswer, score func(*ChunkingAnswer) *ChunkingScore) (mean, deviation ChunkingScore) {
	for _, of := range []func(*ChunkingScore) *float64{
		func(s *ChunkingScore) *float64 { return &s.Recall }, func(s *ChunkingScore) *float64 { return &s.Precision },
		func(s *ChunkingScore) *float64 { return &s.PrecisionOmega }, func(s *ChunkingScore) *float64 { return &s.IoU },
	} {
		var sum, squares float64
		for i := range answers {
			sum += *of(score(&answers[i]))
		}
		m := sum / float64(len(answers))
		for i := range answers {
			d := *of(score(&answers[i])) - m
			squares += d * d
		}
		*of(&mean), *of(&deviation) = m, math.Sqrt(squares/float64(len(answers)))
	}
	return mean, deviation
}

// Figures are the run's, in the units of a [Result].
func (r *ChunkingRun) Figures() []Figure {
	var figures []Figure
	add := func(prefix string, chief bool, mean, deviation ChunkingScore) {
		for _, f := range []struct {
			name            string
			mean, deviation float64
		}{
			{"recall", mean.Recall, deviation.Recall}, {"precision", mean.Precision, deviation.Precision},
			{"precision_omega", mean.PrecisionOmega, deviation.PrecisionOmega}, {"iou", mean.IoU, deviation.IoU},
		} {
			better := Higher
			if !chief {
				better = ""
			}
			figures = append(figures, Figure{Name: prefix + f.name, Value: f.mean, Unit: Fraction, Better: better, Chief: chief},
				Figure{Name: prefix + f.name + "_std", Value: f.deviation, Unit: Fraction})
		}
	}
	add("", true, r.Mean, r.Deviation)
	add("exact.", false, r.Exact, r.ExactDeviation)
	return append(figures, Figure{Name: "chunks", Value: float64(len(r.Chunks)), Unit: Count}, Figure{Name: "mean_tokens", Value: r.MeanTokens()},
		Figure{Name: "queries", Value: float64(len(r.Answers)), Unit: Count})
}

// ChunkingDetail is what is kept of a run, question by question.
type ChunkingDetail struct {
	Questions []ChunkingQuestionDetail `json:"questions"`
}

// ChunkingQuestionDetail is a question with its scores.
type ChunkingQuestionDetail struct {
	ID     string        `json:"id"`
	Source string        `json:"source"`
	Query  string        `json:"query"`
	Score  ChunkingScore `json:"score"`
	// Retrieved are the chunks' sources and spans in bytes, best first.
	Retrieved []ChunkPlace `json:"retrieved"`
}

// ChunkPlace is where a chunk is.
type ChunkPlace struct {
	Source string `json:"source"`
	// Start and End are byte offsets.
	Start int `json:"start"`
	End   int `json:"end"`
}

// Detail is the run as it is kept.
func (s *ChunkingSet) Detail(r *ChunkingRun) ([]byte, error) {
	d := ChunkingDetail{Questions: make([]ChunkingQuestionDetail, len(r.Answers))}
	for i, a := range r.Answers {
		q := &s.Questions[i]
		one := ChunkingQuestionDetail{ID: q.ID, Source: q.Excerpts[0].Source, Query: q.Query, Score: a.Score}
		for _, chunk := range a.Retrieved {
			c := r.Chunks[chunk]
			one.Retrieved = append(one.Retrieved, ChunkPlace{s.Sources[c.Source].Name, c.Start, c.End})
		}
		d.Questions[i] = one
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(d)
	return b.Bytes(), err
}
