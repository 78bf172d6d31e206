// Package arch holds the arrows between packages, as a test.
package arch

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/liverag/liverag/"

// allowed says what each package may import of ours, beside internal/ mechanisms (which have rules of their own below). A package
// that is not named inherits the rule of the nearest one above it. The files are parsed here, not by the go command: a test that runs a command
// stays cached as passing after a bad import.
var allowed = map[string][]string{
	"stream":                {},
	"stream/kafka":          {"stream"},
	"stream/intake":         {"stream"},
	"stream/feedback":       {"stream"},
	"stream/streamtest":     {"stream"},
	"chunker":               {},
	"chunker/external":      {"chunker"},
	"embedder":              {},
	"embedder/local":        {"embedder"},
	"embedder/openai":       {"embedder"},
	"embedder/embeddertest": {"embedder"},
	"vectordb":              {},
	"vectordb/flat":         {"vectordb"},
	"vectordb/milvus":       {"vectordb"},
	"vectordb/vectordbtest": {"vectordb"},
	"ledger":                {"embedder"},
	"indexer":               {"stream", "chunker", "embedder", "vectordb", "ledger"},
	"retrieve":              {"embedder", "vectordb"},
	"retrieve/querylog":     {"retrieve", "vectordb"},
	"evals":                 {"retrieve", "chunker", "embedder", "vectordb", "stream"},
	"evals/chat":            {},
	"docs":                  {},
	"cmd":                   {"*"},
	// Mechanisms serve any package and know none of the nouns.
	"internal":      {},
	"internal/demo": {"evals"},
	"internal/arch": {},

	"evals/freshness/freshnesstest": {"evals/freshness", "stream"},
}

// mechanisms may be imported only where they are named.
var mechanisms = map[string][]string{
	"internal/bpe":          {"chunker", "cmd"},
	"internal/htmltext":     {"indexer", "cmd"},
	"internal/lexical":      {"vectordb"},
	"internal/simd":         {"vectordb/flat", "embedder/local", "cmd"},
	"internal/problem":      {"stream/intake", "stream/feedback", "indexer", "ledger", "retrieve", "internal/httpd", "cmd"},
	"internal/httpd":        {"cmd"},
	"internal/dirlock":      {"stream/kafka", "ledger", "cmd"},
	"internal/diskspace":    {"stream/kafka", "cmd"},
	"internal/tlsfile":      {"stream/kafka", "vectordb/milvus"},
	"internal/githistory":   {"cmd"},
	"internal/mockprovider": {"cmd"},
	"internal/page":         {"cmd", "internal/httpd"},
	"internal/spell":        {"embedder", "cmd"},
	"internal/config":       {"cmd"},
	"internal/demo":         {"cmd"},
}

// heavy modules are linked only through the adapter that exists for them.
var heavy = map[string][]string{
	"github.com/twmb/franz-go":      {"stream/kafka"},
	"github.com/labstack/echo":      {"stream/intake", "stream/feedback", "indexer", "ledger", "retrieve", "internal/httpd", "internal/problem", "internal/page", "cmd"},
	"github.com/prometheus":         {"indexer", "ledger", "retrieve", "internal/httpd", "cmd"},
	"github.com/pkoukk/tiktoken-go": {"chunker", "internal/bpe"},
	"github.com/JohannesKaufmann":   {"internal/htmltext"},
	"github.com/fsnotify":           {"cmd"},
	"github.com/blevesearch":        {"vectordb"},
	"github.com/milvus-io":          {"vectordb/milvus"},
	"google.golang.org/grpc":        {"vectordb/milvus"},
	"github.com/sashabaranov":       {"embedder/openai", "evals/chat", "cmd"},
}

func TestArrows(t *testing.T) {
	root := os.DirFS("../..")
	seen := 0
	err := fs.WalkDir(root, ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && file != "." || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		src, err := fs.ReadFile(root, file)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ImportsOnly)
		if err != nil {
			return err
		}
		seen++
		from, test := path.Dir(file), strings.HasSuffix(file, "_test.go")
		for _, spec := range parsed.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			check(t, file, from, imported, test)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 20 {
		t.Fatalf("only %d Go files were seen: the test looks in the wrong place", seen)
	}
}

func check(t *testing.T, file, from, imported string, test bool) {
	t.Helper()
	if ours, ok := strings.CutPrefix(imported, module); ok {
		switch {
		case ours == from || test:
			// Tests wire real parts together.
		case strings.HasPrefix(ours, "internal/"):
			if !within(from, mechanisms[ours]) {
				t.Errorf("%s imports %s, which serves %v only", file, ours, mechanisms[ours])
			}
		case strings.HasSuffix(ours, "test"):
			t.Errorf("%s imports the conformance suite %s", file, ours)
		default:
			rule, ok := ruleOf(from)
			if !ok {
				t.Errorf("%s: package %s has no rule: add one to allowed", file, from)
			} else if !slices.Contains(rule, ours) && !slices.Contains(rule, "*") {
				t.Errorf("%s imports %s: package %s may import %v of ours", file, ours, from, rule)
			}
		}
		return
	}
	for prefix, where := range heavy {
		if strings.HasPrefix(imported, prefix) && !test && !within(from, where) {
			t.Errorf("%s links %s: only %v may", file, imported, where)
		}
	}
}

// ruleOf finds the rule of the nearest package at or above.
func ruleOf(pkg string) ([]string, bool) {
	for p := pkg; p != "."; p = path.Dir(p) {
		if rule, ok := allowed[p]; ok {
			return rule, true
		}
	}
	return nil, false
}

// within tells whether pkg is one of the packages, or below one of them.
func within(pkg string, packages []string) bool {
	for _, p := range packages {
		if pkg == p || strings.HasPrefix(pkg, p+"/") {
			return true
		}
	}
	return false
}
