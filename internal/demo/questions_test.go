package demo

import (
	"os"
	"strings"
	"testing"
)

// byID is the standard corpus by id.
func byID(t *testing.T) map[string]Document {
	t.Helper()
	documents := make(map[string]Document)
	for _, d := range standardCorpus(t) {
		documents[d.ID] = d
	}
	return documents
}

// TestQuestionsHaveAnswers: testdata/evidence.tsv names, for every right document of every question, words with which
// it answers. They must be in that document.
func TestQuestionsHaveAnswers(t *testing.T) {
	documents := byID(t)
	has := func(id string) bool { _, ok := documents[id]; return ok }
	all := Questions(func(string) bool { return true })
	if len(all) < 80 {
		t.Errorf("%d questions", len(all))
	}
	if resolved := Questions(has); len(resolved) != len(all) {
		t.Errorf("%d of %d questions have an answer in the corpus", len(resolved), len(all))
	}
	b, err := os.ReadFile("testdata/evidence.tsv")
	if err != nil {
		t.Fatal(err)
	}
	evidence := make(map[[2]string]string)
	for line := range strings.Lines(string(b)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) != 3 {
			t.Fatalf("evidence %q has %d fields", line, len(fields))
		}
		evidence[[2]string{fields[0], fields[1]}] = fields[2]
	}
	for _, q := range all {
		if len(q.Documents) > 3 {
			t.Errorf("%s has %d right documents", q.ID, len(q.Documents))
		}
		for _, id := range q.Documents {
			words, ok := evidence[[2]string{q.ID, id}]
			if !ok {
				t.Errorf("no evidence that %s answers %s", id, q.ID)
				continue
			}
			if !has(id) {
				id = packageOf(id)
			}
			text := strings.Join(strings.Fields(documents[id].Text), " ")
			if !strings.Contains(text, words) {
				t.Errorf("%s: %s does not say %q", q.ID, id, words)
			}
		}
	}
}

func TestQuestionsFollowTheCorpus(t *testing.T) {
	if got := Questions(func(string) bool { return false }); len(got) != 0 {
		t.Errorf("an empty corpus answers %d questions", len(got))
	}
	for _, q := range Questions(func(id string) bool { return id == "context" || id == "net/http" }) {
		for _, id := range q.Documents {
			if id != "context" && id != "net/http" {
				t.Errorf("%s is answered by %s, which is not in the corpus", q.ID, id)
			}
		}
		if q.ID == "graceful-shutdown" && q.Documents[0] != "net/http" {
			t.Errorf("the type's package does not answer for it: %v", q.Documents)
		}
	}
	for id, want := range map[string]string{"net/http.Request": "net/http", "net/http": "net/http", "time.Time": "time", "adr/0001-x.md": "adr/0001-x"} {
		if got := packageOf(id); got != want {
			t.Errorf("packageOf(%q) = %q, want %q", id, got, want)
		}
	}
}
