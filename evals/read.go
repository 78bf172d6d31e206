package evals

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// BEIRDocument is one line of a BEIR corpus.
type BEIRDocument struct {
	ID    string `json:"_id"`
	Title string `json:"title"`
	Text  string `json:"text"`
}

// ReadCorpus reads a BEIR corpus.jsonl, a JSON object a line with "_id", "title" and "text"; other fields are
// ignored. It stops at the first bad line. name is what errors call the input; they tell the line too.
func ReadCorpus(r io.Reader, name string) iter.Seq2[BEIRDocument, error] {
	return func(yield func(BEIRDocument, error) bool) {
		seen := make(map[string]bool)
		for line, err := range readLines(r, name) {
			if err != nil {
				yield(BEIRDocument{}, err)
				return
			}
			var d BEIRDocument
			if err := line.decode(&d); err != nil {
				yield(BEIRDocument{}, err)
				return
			}
			switch {
			case d.ID == "":
				yield(BEIRDocument{}, line.errorf(`no "_id"`))
				return
			case seen[d.ID]:
				yield(BEIRDocument{}, line.errorf("document %q is there twice", d.ID))
				return
			}
			seen[d.ID] = true
			if !yield(d, nil) {
				return
			}
		}
	}
}

// ReadQueries reads a BEIR queries.jsonl, a JSON object a line with "_id" and "text", into texts by query id.
func ReadQueries(r io.Reader, name string) (map[string]string, error) {
	queries := make(map[string]string)
	for line, err := range readLines(r, name) {
		if err != nil {
			return nil, err
		}
		var q struct {
			ID   string `json:"_id"`
			Text string `json:"text"`
		}
		if err := line.decode(&q); err != nil {
			return nil, err
		}
		if q.ID == "" {
			return nil, line.errorf(`no "_id"`)
		}
		if q.Text == "" {
			return nil, line.errorf(`query %q has no "text"`, q.ID)
		}
		if _, ok := queries[q.ID]; ok {
			return nil, line.errorf("query %q is there twice", q.ID)
		}
		queries[q.ID] = q.Text
	}
	return queries, nil
}

// ReadQrels reads BEIR judgements: lines of query id, document id and grade between tabs, with or without the
// heading "query-id corpus-id score".
func ReadQrels(r io.Reader, name string) (Qrels, error) {
	qrels := make(Qrels)
	for line, err := range readLines(r, name) {
		if err != nil {
			return nil, err
		}
		fields := strings.Split(string(line.text), "\t")
		if len(fields) != 3 {
			return nil, line.errorf("%d fields between tabs instead of 3: query id, document id, grade", len(fields))
		}
		if line.number == 1 && fields[0] == "query-id" {
			continue
		}
		grade, err := strconv.Atoi(fields[2])
		if err != nil {
			return nil, line.errorf("the grade %q is no whole number", fields[2])
		}
		query, document := fields[0], fields[1]
		if _, ok := qrels[query][document]; ok {
			return nil, line.errorf("document %q is judged twice for query %q", document, query)
		}
		if qrels[query] == nil {
			qrels[query] = make(map[string]int)
		}
		qrels[query][document] = grade
	}
	return qrels, nil
}

// ReadQuestions reads a JSON object a line: {"id"?, "query", "documents": [ids]}, or {"id"?, "query", "passages": [quotes]},
// or with "grades" by document id in place of documents. A question without an id gets the number of its line. Unknown fields
// are errors, so that a misspelt one is not silently without effect.
func ReadQuestions(r io.Reader, name string) (Questions, error) {
	var questions Questions
	ids := make(map[string]bool)
	for line, err := range readLines(r, name) {
		if err != nil {
			return nil, err
		}
		var q Question
		decoder := json.NewDecoder(bytes.NewReader(line.text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&q); err != nil {
			return nil, line.errorf("%w", err)
		}
		if decoder.More() {
			return nil, line.errorf("more than one JSON value")
		}
		if q.ID == "" {
			q.ID = strconv.Itoa(line.number)
		}
		switch {
		case q.Query == "":
			return nil, line.errorf(`no "query"`)
		case len(q.Documents) == 0 && len(q.Passages) == 0 && len(q.Grades) == 0:
			return nil, line.errorf(`no "documents" and no "passages": the question has no right answer`)
		case len(q.Passages) > 0 && (len(q.Documents) > 0 || len(q.Grades) > 0):
			return nil, line.errorf(`"documents" or "passages", not both`)
		case slices.Contains(q.Documents, ""):
			return nil, line.errorf("an empty document id")
		case slices.ContainsFunc(q.Passages, func(p string) bool { return spaced(p) == "" }):
			return nil, line.errorf("an empty passage")
		case ids[q.ID]:
			return nil, line.errorf("question %q is there twice", q.ID)
		}
		if len(q.Documents) == 0 && len(q.Passages) == 0 {
			if q.Documents = graded(q.Grades); len(q.Documents) == 0 {
				return nil, line.errorf(`no grade above 0 in "grades": the question has no right answer`)
			}
		}
		ids[q.ID] = true
		questions = append(questions, q)
	}
	if len(questions) == 0 {
		return nil, fmt.Errorf("%s: no questions in it", name)
	}
	return questions, nil
}

// BenchmarkText is the document's text as benchmarks search it: title, a space, text.
func (d BEIRDocument) BenchmarkText() string { return strings.TrimSpace(d.Title + " " + d.Text) }

// BEIR is a benchmark in BEIR's layout on disk.
type BEIR struct {
	dir string
	// Questions are the judged queries in the order of their ids, with grades.
	Questions Questions
	// Qrels are the judgements of the split.
	Qrels Qrels
}

// OpenBEIR reads dir/queries.jsonl and dir/qrels/<split>.tsv; the corpus is left to [BEIR.Corpus]. A judged query
// without a text is an error.
func OpenBEIR(dir, split string) (*BEIR, error) {
	var queries map[string]string
	var qrels Qrels
	read := func(name string, parse func(io.Reader) error) error {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("open benchmark: %w", err)
		}
		defer f.Close()
		return parse(f)
	}
	if err := read("queries.jsonl", func(r io.Reader) (err error) {
		queries, err = ReadQueries(r, "queries.jsonl")
		return err
	}); err != nil {
		return nil, err
	}
	judgements := filepath.Join("qrels", split+".tsv")
	if err := read(judgements, func(r io.Reader) (err error) {
		qrels, err = ReadQrels(r, judgements)
		return err
	}); err != nil {
		return nil, err
	}
	b := &BEIR{dir: dir, Qrels: qrels}
	for query, judged := range qrels {
		text, ok := queries[query]
		if !ok {
			return nil, fmt.Errorf("%s judges query %q, which queries.jsonl does not have", judgements, query)
		}
		b.Questions = append(b.Questions, Question{ID: query, Query: text, Grades: judged, Documents: graded(judged)})
	}
	slices.SortFunc(b.Questions, func(x, y Question) int { return strings.Compare(x.ID, y.ID) })
	return b, nil
}

// graded are the documents with a grade above 0, sorted.
func graded(grades map[string]int) []string {
	var documents []string
	for document, grade := range grades {
		if grade > 0 {
			documents = append(documents, document)
		}
	}
	slices.Sort(documents)
	return documents
}

// Corpus reads the benchmark's documents from disk, one after the other.
func (b *BEIR) Corpus() iter.Seq2[BEIRDocument, error] {
	return func(yield func(BEIRDocument, error) bool) {
		f, err := os.Open(filepath.Join(b.dir, "corpus.jsonl"))
		if err != nil {
			yield(BEIRDocument{}, fmt.Errorf("open benchmark: %w", err))
			return
		}
		defer f.Close()
		ReadCorpus(f, "corpus.jsonl")(yield)
	}
}

// textLine is one line of an input, without its end.
type textLine struct {
	name   string
	number int
	text   []byte
}

func (l textLine) errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: "+format, append([]any{l.name, l.number}, args...)...)
}

// decode reads the line as one JSON object.
func (l textLine) decode(into any) error {
	if err := json.Unmarshal(l.text, into); err != nil {
		return l.errorf("%w", err)
	}
	return nil
}

// readLines yields the lines that are not blank, of any length. A byte-order mark and carriage returns are taken off.
// text is valid until the next line.
func readLines(r io.Reader, name string) iter.Seq2[textLine, error] {
	return func(yield func(textLine, error) bool) {
		buffered := bufio.NewReaderSize(r, 64<<10)
		for number := 1; ; number++ {
			text, err := buffered.ReadBytes('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				yield(textLine{}, fmt.Errorf("read %s: %w", name, err))
				return
			}
			if number == 1 {
				text = bytes.TrimPrefix(text, []byte("\ufeff"))
			}
			text = bytes.TrimRight(text, "\r\n")
			if len(bytes.TrimSpace(text)) > 0 && !yield(textLine{name, number, text}, nil) {
				return
			}
			if err != nil {
				return
			}
		}
	}
}
