package htmltext

import (
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// scale divides the amount of work of the larger tests.
var scale = 1

func TestConvert(t *testing.T) {
	for _, tt := range []struct{ name, page, title, markdown string }{
		{"empty", "", "", ""},
		{"text alone", "a < b &lt;i&gt; &amp;lt;", "", "a < b <i> &lt;"},
		{
			"a page", `<!doctype html><html><head><title> The
			title </title><style>p{}</style><script>var x = "<p>no</p>"</script></head><body>
			<header><nav><a href="/">Home</a></nav></header><nav>menu</nav>
			<main><h1>Refunds</h1><p>Within <b>30</b> days, see <a href="/terms">the terms</a>.</p><h2>How</h2><ul><li>Ask<li>Wait</ul></main>
			<aside aria-hidden="true">ad</aside><footer>© 2024</footer></body></html>`,
			"The title", "# Refunds\n\nWithin **30** days, see [the terms](/terms).\n\n## How\n\n- Ask\n- Wait",
		},
		{"the title may be the heading", "<header><h1>Top</h1></header><article><header>by A</header><p>x</p><footer>note</footer></article>", "Top", "# Top\n\nby A\n\nx\n\nnote"},
		{"tables", "<table><tr><th>a</th><th>b|c</th></tr><tr><td>1</td></tr></table>", "", "| a | b\\|c |\n|---|---|\n| 1 |  |"},
		{"headings that end in a mark", "<h1>#       </h1><h2>C#\n<br>F#</h2><h3> </h3>", "#", "# #\n\n## C# F#"},
		{"code", "<pre><code class=language-go>x := 1\n\n# y</code></pre><p>and <code>f_g*</code>", "", "```go\nx := 1\n\n# y\n```\n\nand `f_g*`"},
		{"nothing is escaped", "<p>snake_case and 2*3*4 [x] #1", "", "snake_case and 2*3*4 [x] #1"},
		{"no scripts in addresses", `<a href="javascript:x()">a</a> <a href=" DATA:x">b</a> <img src="data:image/png;base64,AAAA" alt="a chart"> <img src=x.png alt=y>`, "", "a b a chart ![y](x.png)"},
		{"what is hidden", "<p hidden>a</p><div role=navigation>b</div><form>name <input value=x><select><option>o</select></form><svg><title>s</title></svg><!-- c -->", "", "name"},
		{"a sparse table is no table", "<table><tr>" + strings.Repeat("<td>x", 300) + strings.Repeat("<tr><td>y", 300) + "</table>", "", strings.Repeat("x ", 299) + "x" + strings.Repeat("\n\ny", 300)},
		{"invalid UTF-8", "<p>a\xffb\xe2\x82</p>", "", "a\ufffdb\ufffd"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			page, err := Convert(tt.page)
			if err != nil {
				t.Fatal(err)
			}
			if page.Title != tt.title || page.Markdown != tt.markdown {
				t.Errorf("title %q, markdown\n%q\nwant %q\n%q", page.Title, page.Markdown, tt.title, tt.markdown)
			}
		})
	}
}

// Elements nested without end keep their text, and are neither an error nor a matter of minutes.
func TestDeep(t *testing.T) {
	n := 20_000 / scale
	for _, tag := range []string{"div", "blockquote", "ul><li", "b", "table><tr><td", "span", "font", "svg"} {
		page := strings.Repeat("<"+tag+">", n) + "the text"
		out, err := Convert(page)
		if err != nil {
			t.Errorf("<%s>: %v", tag, err)
		}
		if !strings.Contains(out.Markdown, "the text") && tag != "svg" {
			t.Errorf("<%s>: %.100q", tag, out.Markdown)
		}
	}
	// Just what the parser takes.
	out, err := Convert(strings.Repeat("<blockquote>", 400) + strings.Repeat("<p>line", 1000))
	if err != nil || strings.Count(out.Markdown, "line") != 1000 || len(out.Markdown) > 100_000 {
		t.Errorf("%d bytes, %v", len(out.Markdown), err)
	}
}

// Elements beside each other must cost no more than in proportion: this test would not end.
func TestLarge(t *testing.T) {
	n := 1 << 18
	if testing.Short() {
		n = 1 << 15
	}
	n /= scale
	for _, unit := range []string{"a<!-- x -->", "<p>a", "<b>a</b>", "<a href=x>y</a>", "<table><tr><td>x</table>", "<li>x", "<br>", "&lt;", "*_`[", "<p><b>", "<i><p>", "<code>`</code>", "<td><table>", "<img src=data:x alt=y>"} {
		for _, before := range []string{"", "<table>", strings.Repeat("<blockquote>", 300), "<pre>"} {
			out, err := Convert(before + strings.Repeat(unit, n/len(unit)))
			if err != nil || len(out.Markdown) > 16*n {
				t.Errorf("%q repeated after %.20q: %d bytes of Markdown, %v", unit, before, len(out.Markdown), err)
			}
		}
	}
}

// The version of the module that converts is part of Version.
func TestVersionNamesTheModule(t *testing.T) {
	file, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(file)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "github.com/JohannesKaufmann/html-to-markdown/v2" {
			if !strings.HasPrefix(Version, "html-to-markdown/"+strings.TrimPrefix(fields[1], "v")+"+") {
				t.Errorf("Version is %s, but go.mod asks for %s", Version, fields[1])
			}
			return
		}
	}
	t.Error("go.mod does not ask for html-to-markdown")
}

func FuzzConvert(f *testing.F) {
	for _, page := range []string{
		"", "<", "<!--", "<p>a<b>c</p>", "<table><tr><td colspan=9999 rowspan=99>x<tr><td>y", "<pre>\n`</pre>", "<ul><li><ul><li>x", "<svg><p>x", "<title>a<title>", "\xff<\xfe>", "<a href='\x00'>x", "<h1><table><h2>",
		"<frameset><noframes>x", "<math><mi>x", "<template><p>x", "<ol start=99999999999999999999><li>x", "<img alt='](x)' src='a b'>", "<p># a</p><p>- b</p>", "<select><table>", "<caption>x", "<header><header>x",
	} {
		f.Add(page)
	}
	f.Fuzz(func(t *testing.T, page string) {
		out, err := Convert(page)
		if err != nil {
			t.Fatalf("%q: %v", page, err)
		}
		if !utf8.ValidString(out.Markdown) || !utf8.ValidString(out.Title) || strings.TrimSpace(out.Markdown) != out.Markdown {
			t.Fatalf("%q: %q", page, out)
		}
		if again, _ := Convert(page); again != out {
			t.Fatalf("%q: %q, then %q", page, out, again)
		}
	})
}

func BenchmarkConvert(b *testing.B) {
	page := "<html><head><title>t</title></head><body><main>" + strings.Repeat("<h2>Heading</h2><p>Some <b>bold</b> words with <a href='/x'>a link</a> and `code` in a paragraph of a page.</p><ul><li>one<li>two</ul>", 30) + "</main></body></html>"
	b.SetBytes(int64(len(page)))
	for b.Loop() {
		if _, err := Convert(page); err != nil {
			b.Fatal(err)
		}
	}
}
