package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const evil = "<script>alert(1)</script>\"'&\x00\xff</style><img src=x onerror=alert(1)>"

// everything is a page with every kind of part, each of whose texts wants to break out.
func everything() *Page {
	points := []Point{{1, 2, evil}, {10, .5, ""}, {math.NaN(), 1, ""}, {3, math.Inf(1), ""}, {-1, 3, ""}, {0, 0, ""}}
	series := []Series{{evil, points}, {"b", points[:2]}, {"c", points[:2]}, {"d", points[:2]}, {Name: "empty"}}
	axis := Axis{Label: evil, Format: func(float64) string { return evil }}
	plots := []Part{
		Scatter{Title: evil, Note: evil, X: axis, Y: Axis{}, Series: series, Diagonal: true},
		Lines{Title: evil, X: Axis{Log: true}, Y: Axis{Log: true}, Series: series},
		Histogram{Title: evil, X: axis, Values: []float64{1, 2, 2, 3, math.NaN()}, Marks: []Point{{2, 0, evil}}},
		Histogram{Title: "none"}, Scatter{Title: "none", X: Axis{Log: true}}, Lines{Title: "one", Series: []Series{{Points: []Point{{5, 5, ""}}}}},
		Pareto{Title: evil, LessX: true, X: Axis{Log: true, Label: "cost"}, Y: axis, Points: points},
	}
	return &Page{Title: evil, Lead: evil, Facts: []Fact{{evil, evil}}, Parts: append([]Part{
		Text(evil), Figures{{evil, evil, evil}},
		Table{Columns: []Column{{evil, false}, {"n", true}}, Rows: [][]Cell{{{evil, Bad}, {"1", ""}, {"more than heads", Good}}}},
		Details{Summary: evil, Parts: []Part{Passages{{evil, Good, evil}}}}, Columns{{Text(evil)}, {plots[0]}},
	}, Section{Title: evil, Text: evil, Parts: plots})}
}

// TestPage: the page is well-formed, nothing in it can run, and it asks for nothing from outside.
func TestPage(t *testing.T) {
	var b bytes.Buffer
	if _, err := everything().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, bad := range []string{"<script", "<img", "http:", "https:", "@import", "url(", "NaN", "Inf", "\x00", "\xff"} {
		if strings.Contains(page, bad) {
			t.Errorf("%q is in the page", bad)
		}
	}
	if !strings.Contains(page, "&lt;script&gt;") || !strings.Contains(page, "prefers-color-scheme:dark") {
		t.Error("the texts, or the dark scheme, are missing")
	}
	// HTML as written here is nearly XML: what is never closed is taken out, and then every element must be.
	body := page[strings.Index(page, "<body>"):strings.Index(page, "</html>")]
	decoder := xml.NewDecoder(strings.NewReader(body))
	decoder.Entity = xml.HTMLEntity
	elements := 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		if _, ok := token.(xml.StartElement); ok {
			elements++
		}
	}
	if elements < 100 {
		t.Errorf("only %d elements", elements)
	}
	if n := strings.Count(page, "class=\"plots\""); n != 2 {
		t.Errorf("%d grids of plots, want one for each run of them", n)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "r.html")
	if err := (&Page{Title: "T"}).WriteFile(name); err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(name); err != nil || !strings.HasPrefix(string(content), "<!doctype html>") {
		t.Errorf("%q, %v", content, err)
	}
	if err := (&Page{}).WriteFile(filepath.Join(dir, "no", "r.html")); err == nil {
		t.Error("a folder that is not there is no error")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestFront(t *testing.T) {
	p := Pareto{LessX: true, Points: []Point{{10, .5, "dear"}, {1, .4, "cheap"}, {5, .6, "best"}, {5, .3, "beaten"}, {2, .4, "dearer than cheap"}, {1, .4, "as cheap"}}}
	var labels []string
	for _, q := range p.front() {
		labels = append(labels, q.Label)
	}
	if !slices.Equal(labels, []string{"cheap", "as cheap", "best"}) {
		t.Errorf("front %v", labels)
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		axis Axis
		most int
		want []float64
	}{
		{Axis{From: 0, To: 100}, 5, []float64{0, 20, 40, 60, 80, 100}},
		{Axis{From: -.05, To: 1}, 6, []float64{0, .2, .4, .6, .8, 1}},
		{Axis{From: 1, To: 1000, Log: true}, 5, []float64{1, 10, 100, 1000}},
		{Axis{From: .9, To: 22, Log: true}, 6, []float64{1, 2, 5, 10, 20}},
	} {
		got := c.axis.ticks(c.most)
		if !slices.EqualFunc(got, c.want, func(a, b float64) bool { return math.Abs(a-b) < 1e-9 && !math.Signbit(a) }) {
			t.Errorf("%+v: %v, want %v", c.axis, got, c.want)
		}
	}
}

func TestLabelsDoNotCover(t *testing.T) {
	// Points close together, as of many recipes: labels that have no room are left out, never drawn over one another.
	var points []Point
	for i := range 30 {
		points = append(points, Point{X: 100 + float64(i*i), Y: .5 + float64(i)/100, Label: fmt.Sprintf("recipe number %d", i)})
	}
	var b bytes.Buffer
	Pareto{LessX: true, X: Axis{Log: true}, Points: points}.write(&b)
	var boxes []box
	for _, m := range regexp.MustCompile(`<text class="label" text-anchor="(\w+)" x="([\d.]+)" y="([\d.]+)">([^<]*)<`).FindAllStringSubmatch(b.String(), -1) {
		x, _ := strconv.ParseFloat(m[2], 64)
		y, _ := strconv.ParseFloat(m[3], 64)
		long := 5.5 * float64(len(m[4]))
		at := box{x, y - 9, x + long, y}
		if m[1] == "end" {
			at.left, at.right = x-long, x
		}
		if slices.ContainsFunc(boxes, at.meets) {
			t.Errorf("%s covers another label", m[4])
		}
		boxes = append(boxes, at)
	}
	if len(boxes) < 4 || len(boxes) == len(points) {
		t.Errorf("%d labels of %d points", len(boxes), len(points))
	}
	if strings.Count(b.String(), "<title>recipe number") != len(points) {
		t.Error("a point without a title: its label is nowhere")
	}
}
