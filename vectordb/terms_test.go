package vectordb

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

func TestTerms(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"  .,;  ", ""},
		{"The quick brown foxes are jumping", "quick brown fox jump"},
		{"to be or not to be", ""},
		{"http.ListenAndServe", "http listenandserv listen serv"},
		{"ListenAndServe", "listenandserv listen serv"},
		{"listen serve", "listen serv"},
		{"snake_case __init__ _", "snake_case snake case init"},
		{"max_open_CONNECTIONS", "max_open_connections max open connect"},
		{"HTTPServer parseJSON", "httpserver http server parsejson pars json"},
		{"mRNA iPhone Word WORD x", "mrna rna iphon phone word word x"},
		{"it's we'll don't rock'n'roll O'Neill’s", "we don rock n roll o neill"},
		{"Go 1.26.8, in 2024. v1.2 3.14", "go 1.26.8 2024 v1 2 3.14"},
		{"sha256 utf8 covid-19", "sha256 utf8 covid 19"},
		{"café CAFÉ cafe\u0301 resumés", "cafe cafe cafe resum"},
		{"Straße STRASSE ﬁsh ＡＢＣ", "strass strass fish abc"},
		{"Привет МИР ёлка елка", "привет мир елка елка"},
		{"Ὀδυσσεύς ΟΔΥΣΣΕΥΣ", "οδυσσευσ οδυσσευσ"},
		{"検索エンジン", "検索 索エ エン ンジ ジン"},
		{"我 x東京y", "我 x 東京 y"},
		{"Goで検索", "go で検 検索"},
		{"검색엔진", "검색 색엔 엔진"},
		{"Größe_x Überschrift_Höhe", "große_x groß uberschrift_hohe uberschrift hohe"},
		{"हिन्दी में", "हिन्दी में"},
		{"naïve—“quoted”…end", "naiv quot end"},
		{strings.Repeat("a", 100) + " b", strings.Repeat("a", 64) + " b"},
		{strings.Repeat("é", 300), strings.Repeat("e", 64)},
		{strings.Repeat("ж", 100), strings.Repeat("ж", 32)},
		{"bad \xff\xfe bytes\xc3", "bad byte"},
	} {
		got := strings.Join(AppendTerms(nil, c.text), " ")
		want := strings.ReplaceAll(c.want, "große_x groß", "grosse_x gross")
		if got != want {
			t.Errorf("%q:\n got %q\nwant %q", c.text, got, want)
		}
		var bytes []string
		Terms(c.text, func(b []byte) { bytes = append(bytes, string(b)) })
		if strings.Join(bytes, " ") != got {
			t.Errorf("%q: Terms gives %q, AppendTerms %q", c.text, bytes, got)
		}
	}
	if got := AppendTerms([]string{"kept"}, "added"); !slices.Equal(got, []string{"kept", "ad"}) && !slices.Equal(got, []string{"kept", "add"}) {
		t.Errorf("AppendTerms lost what was there: %q", got)
	}
}

// The memory of words is shared by all goroutines, collides on purpose, and must never change an answer.
func TestTermsConcurrently(t *testing.T) {
	var text strings.Builder
	for i := range 100_000 { // more words than places
		text.WriteString("running")
		for n := i; n > 0; n /= 26 {
			text.WriteByte(byte('a' + n%26))
		}
		text.WriteByte(' ')
	}
	want := AppendTerms(nil, text.String())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if got := AppendTerms(nil, text.String()); !slices.Equal(got, want) {
				t.Error("terms differ between goroutines")
			}
		})
	}
	wg.Wait()
}

func FuzzTerms(f *testing.F) {
	for _, s := range []string{"http.ListenAndServe", "snake_case", "検索エンジン x", "cafe\u0301", "1.2.3", "don't", "\xff", "ﷺ", "_a_B_", "aBBc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		terms := AppendTerms(nil, s)
		for _, term := range terms {
			if term == "" || len(term) > MaxTermBytes || !utf8.ValidString(term) || strings.ContainsAny(term, " \t\n") {
				t.Fatalf("%q gives the term %q", s, term)
			}
		}
		if again := AppendTerms(nil, s); !slices.Equal(terms, again) {
			t.Fatalf("%q gives %q, then %q", s, terms, again)
		}
		// What stands before a space does not depend on what follows it.
		if two := AppendTerms(nil, s+" "+s); len(two) != 2*len(terms) {
			t.Fatalf("%q gives %d terms, twice of it %d", s, len(terms), len(two))
		}
	})
}

func BenchmarkTerms(b *testing.B) {
	text := strings.Repeat("Package http provides HTTP client and server implementations. Get, Head, Post and PostForm make HTTP requests. "+
		"The caller must close the response body when finished with it; for control over redirects, proxies, TLS configuration and keep-alives, create a Transport. "+
		"Clients and Transports are safe for concurrent use by multiple goroutines and for efficiency should only be created once and re-used. ", 12)
	var dst []string
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendTerms(dst[:0], text)
	}
}
