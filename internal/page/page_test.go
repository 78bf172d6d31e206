package page

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
)

func TestPage(t *testing.T) {
	e := echo.New()
	Routes(e)
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("got %d %v", w.Code, w.Header())
	}
	policy := w.Header().Get("Content-Security-Policy")
	if strings.Contains(policy, "unsafe") || strings.Count(policy, "'sha256-") != 2 || !strings.Contains(policy, "default-src 'self'") {
		t.Errorf("policy is %s", policy)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("If-None-Match", w.Header().Get("ETag"))
	again := httptest.NewRecorder()
	e.ServeHTTP(again, r)
	if again.Code != 304 || again.Body.Len() > 0 {
		t.Errorf("got %d with %d bytes", again.Code, again.Body.Len())
	}
}

// The policy's hashes cover one script and one style: whatever else the file held would not run, and the page would be broken in browsers only.
func TestNothingInlineButWhatTheHashesCover(t *testing.T) {
	text := string(html)
	for _, element := range []string{"<script", "<style", "</script", "</style"} {
		if n := strings.Count(text, element); n != 1 {
			t.Errorf("%s is there %d times", element, n)
		}
	}
	if len(content("script")) < 1000 || len(content("style")) < 1000 {
		t.Error("script or style was not found")
	}
	for name, pattern := range map[string]string{
		"inline style":         `<[^>]*\sstyle=`,
		"inline handler":       `<[^>]*\son[a-z]+=`,
		"request to elsewhere": `(src|href)="(https?:)?//|[:\s]url\(|@import|https?://[a-z]`,
	} {
		if found := regexp.MustCompile(pattern).FindString(text); found != "" {
			t.Errorf("%s: %s", name, found)
		}
	}
}

// Nothing of a document may be parsed as markup or run as script.
func TestNoWayToMakeMarkup(t *testing.T) {
	script := string(content("script"))
	for _, sink := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "setAttribute", "srcdoc", "DOMParser", "createContextualFragment", "javascript:"} {
		if strings.Contains(script, sink) {
			t.Errorf("the script uses %s", sink)
		}
	}
	// A link is the one attribute that comes from a document, and it goes through safeLink.
	if got := regexp.MustCompile(`\.(href|src|action)\s*=[^=].*`).FindAllString(script, -1); len(got) != 1 || got[0] != ".href = href;" || !strings.Contains(script, "const href = safeLink(hit.url);") {
		t.Errorf("attributes are set by %q", got)
	}
}

// The page's own script runs here against a hostile document, in a page made of objects that remember what was done to them.
func TestHostileDocument(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node to run the page's script with")
	}
	harness, err := os.ReadFile("testdata/harness.js")
	if err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/page.js"
	if err := os.WriteFile(file, append(append(harness, content("script")...), "\nverify();\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(node, file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
