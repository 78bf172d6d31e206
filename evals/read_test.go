package evals

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadQuestions(t *testing.T) {
	got, err := ReadQuestions(strings.NewReader("\ufeff"+`{"query":"how?","documents":["a","b"]}`+"\r\n\n"+`{"id":"x","query":"why?","documents":["c"]}`), "q.jsonl")
	want := Questions{{ID: "1", Query: "how?", Documents: []string{"a", "b"}}, {ID: "x", Query: "why?", Documents: []string{"c"}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if qrels := got.Qrels(); qrels["1"]["b"] != 1 || len(qrels) != 2 {
		t.Errorf("qrels %v", qrels)
	}
}

func TestReadErrors(t *testing.T) {
	questions := func(s string) error { _, err := ReadQuestions(strings.NewReader(s), "f"); return err }
	queries := func(s string) error { _, err := ReadQueries(strings.NewReader(s), "f"); return err }
	qrels := func(s string) error { _, err := ReadQrels(strings.NewReader(s), "f"); return err }
	corpus := func(s string) error {
		for _, err := range ReadCorpus(strings.NewReader(s), "f") {
			if err != nil {
				return err
			}
		}
		return nil
	}
	ok := `{"_id":"1","title":"t","text":"x"}` + "\n"
	for _, c := range []struct {
		name  string
		read  func(string) error
		input string
		want  string
	}{
		{"question is no JSON", questions, `{"query":"a","documents":["b"]}` + "\n\nnonsense", "f:3: invalid character"},
		{"question misspelt", questions, `{"query":"a","document":["b"]}`, `f:1: json: unknown field "document"`},
		{"two values a line", questions, `{"query":"a","documents":["b"]}{}`, "f:1: more than one JSON value"},
		{"no query", questions, `{"documents":["b"]}`, `f:1: no "query"`},
		{"no documents", questions, `{"query":"a"}`, `f:1: no "documents"`},
		{"empty document", questions, `{"query":"a","documents":[""]}`, "f:1: an empty document id"},
		{"question twice", questions, `{"id":"2","query":"a","documents":["b"]}` + "\n" + `{"query":"a","documents":["b"]}`, `f:2: question "2" is there twice`},
		{"no questions", questions, "\n", "f: no questions"},
		{"query without id", queries, `{"text":"a"}`, `f:1: no "_id"`},
		{"query without text", queries, `{"_id":"a"}`, `f:1: query "a" has no "text"`},
		{"query twice", queries, ok + ok, `f:2: query "1" is there twice`},
		{"too few fields", qrels, "query-id\tcorpus-id\tscore\n1\t2\n", "f:2: 2 fields between tabs"},
		{"grade", qrels, "1\t2\thigh\n", `f:1: the grade "high"`},
		{"judged twice", qrels, "1\t2\t1\n1\t2\t0\n", `f:2: document "2" is judged twice`},
		{"corpus id", corpus, ok + `{"text":"x"}`, `f:2: no "_id"`},
		{"corpus twice", corpus, ok + ok, `f:2: document "1" is there twice`},
		{"corpus type", corpus, `{"_id":1}`, "f:1: json: cannot unmarshal number"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.read(c.input); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestReadPassesOnErrors(t *testing.T) {
	broken := errors.New("broken")
	if _, err := ReadQrels(io.MultiReader(strings.NewReader("a\tb\t1\n"), iotest.ErrReader(broken)), "f"); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestOpenBEIR(t *testing.T) {
	b, err := OpenBEIR("testdata/beir", "test")
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Questions) != 2 || b.Questions[0].Query != "when do swifts sleep" || !reflect.DeepEqual(b.Questions[0].Documents, []string{"d1", "d3"}) {
		t.Errorf("questions %+v", b.Questions)
	}
	if got := b.Questions.Qrels(); !reflect.DeepEqual(got, b.Qrels) {
		t.Errorf("the questions' judgements %v differ from the file's %v", got, b.Qrels)
	}
	var ids []string
	for d, err := range b.Corpus() {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, d.ID)
	}
	if !reflect.DeepEqual(ids, []string{"d1", "d2", "d3"}) {
		t.Errorf("documents %v", ids)
	}
	if _, err := OpenBEIR("testdata/beir", "unknown"); err == nil || !strings.Contains(err.Error(), "unknown.tsv") {
		t.Errorf("a split that is not there: %v", err)
	}
	if _, err := OpenBEIR("testdata/beir", "orphan"); err == nil || !strings.Contains(err.Error(), `judges query "q9"`) {
		t.Errorf("a judged query without text: %v", err)
	}
}

func TestOpenSharedBEIR(t *testing.T) {
	for name, want := range map[string][3]int{"scifact": {5183, 300, 339}, "cranfield": {1400, 225, 1837}} {
		b, err := OpenBEIR(shared(t, "beir", name), "test")
		if err != nil {
			t.Fatal(err)
		}
		var got [3]int
		for _, err := range b.Corpus() {
			if err != nil {
				t.Fatal(err)
			}
			got[0]++
		}
		got[1] = len(b.Questions)
		for _, judged := range b.Qrels {
			got[2] += len(judged)
		}
		if got != want {
			t.Errorf("%s: documents, queries, judgements %v, want %v", name, got, want)
		}
	}
}

func FuzzReadQuestions(f *testing.F) {
	f.Add(`{"query":"a","documents":["b"]}`)
	f.Add("\ufeff{}\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		questions, err := ReadQuestions(strings.NewReader(s), "f")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Fatalf("%v does not name the input", err)
			}
			return
		}
		if len(questions.Qrels()) != len(questions) {
			t.Fatalf("%d questions, %d judged", len(questions), len(questions.Qrels()))
		}
	})
}
