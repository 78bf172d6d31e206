package report

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Axis says how values of one direction are drawn.
type Axis struct {
	Label string
	// Log makes it logarithmic; values that are not above zero are then left out.
	Log bool
	// From and To are the ends, if To is above From. Otherwise they follow from the values.
	From, To float64
	// Format writes a value. Defaults to the shortest that is exact to about three digits.
	Format func(float64) string
}

// Point is a mark in a plot.
type Point struct {
	X, Y float64
	// Label is shown when the mark is pointed at; in a [Pareto], beside it.
	Label string
}

// Series are points that belong together.
type Series struct {
	// Name stands in the legend, which is shown if a series has one.
	Name   string
	Points []Point
}

// Scatter is a plot of points.
type Scatter struct {
	Title, Note string
	X, Y        Axis
	Series      []Series
	// Diagonal draws y = x: where nothing has changed.
	Diagonal bool
}

// Lines is a plot of points joined in their order.
type Lines struct {
	Title, Note string
	X, Y        Axis
	Series      []Series
}

// Histogram counts values in intervals of equal width (on a logarithmic axis: equal ratio).
type Histogram struct {
	Title, Note string
	X           Axis
	// Bins is about how many intervals there are. Defaults to 20.
	Bins   int
	Values []float64
	// Marks are vertical lines with a name, such as a mean or a limit.
	Marks []Point
}

// Pareto is a plot of choices, with a line through those that no other one beats in both directions.
type Pareto struct {
	Title, Note string
	X, Y        Axis
	// LessX and LessY say that small values are better.
	LessX, LessY bool
	Points       []Point
}

// plot is a part that shares a grid with its neighbours.
type plot interface {
	Part
	isPlot()
}

func (Scatter) isPlot()   {}
func (Lines) isPlot()     {}
func (Histogram) isPlot() {}
func (Pareto) isPlot()    {}

// The picture's size in its own units, and what is around the plotted area. It is as wide as a phone, so that text is legible there.
const (
	width, height           = 420., 270.
	left, right, top, below = 52., 14., 14., 42.
)

// colours is how many series differ in colour; their shapes differ besides, for whoever can't tell the colours.
const colours = 6

// frame is the plotted area with its axes.
type frame struct {
	x, y Axis
}

func (s Scatter) write(b *bytes.Buffer) {
	f := newFrame(s.X, s.Y, s.Series)
	open(b, s.Title, s.Note)
	f.axes(b)
	if s.Diagonal {
		from, to := max(f.x.From, f.y.From), min(f.x.To, f.y.To)
		fmt.Fprintf(b, "<path class=\"guide\" d=\"M%s %sL%s %s\"/>\n", num(f.px(from)), num(f.py(from)), num(f.px(to)), num(f.py(to)))
	}
	for i, series := range s.Series {
		f.marks(b, i, series.Points, 3.5)
	}
	b.WriteString("</svg>\n")
	legend(b, s.Series)
	b.WriteString("</figure>\n")
}

func (l Lines) write(b *bytes.Buffer) {
	f := newFrame(l.X, l.Y, l.Series)
	open(b, l.Title, l.Note)
	f.axes(b)
	for i, series := range l.Series {
		f.path(b, fmt.Sprintf("line s%d", i%colours), series.Points)
		if len(series.Points) <= 60 {
			f.marks(b, i, series.Points, 3)
		}
	}
	b.WriteString("</svg>\n")
	legend(b, l.Series)
	b.WriteString("</figure>\n")
}

func (p Pareto) write(b *bytes.Buffer) {
	f := newFrame(p.X, p.Y, []Series{{Points: p.Points}})
	front := p.front()
	open(b, p.Title, p.Note)
	f.axes(b)
	f.path(b, "line s0", front)
	onFront := func(q Point) bool { return slices.Contains(front, q) }
	var rest []Point
	for _, q := range p.Points {
		if !onFront(q) {
			rest = append(rest, q)
		}
	}
	f.marks(b, 3, rest, 4)
	f.marks(b, 0, front, 5)
	f.labels(b, front, rest)
	b.WriteString("</svg>\n</figure>\n")
}

// box is a rectangle of a plot.
type box struct{ left, top, right, bottom float64 }

func (a box) meets(o box) bool {
	return a.left < o.right && o.left < a.right && a.top < o.bottom && o.top < a.bottom
}

// labels writes the points' labels beside them, as many as have room: one that would cover another one, or a point's mark, is only shown when the mark is pointed at.
// Marks of the others are covered only where there is no other place. The last points come first.
func (f *frame) labels(b *bytes.Buffer, points, others []Point) {
	const letter, line, gap = 6.2, 13, 8 // about how large a letter is
	marks := func(points []Point) []box {
		var out []box
		for _, q := range points {
			if f.shows(q) {
				x, y := f.px(q.X), f.py(q.Y)
				out = append(out, box{x - 5, y - 5, x + 5, y + 5})
			}
		}
		return out
	}
	taken, better := marks(points), marks(others)
	for _, q := range slices.Backward(points) {
		if !f.shows(q) || q.Label == "" {
			continue
		}
		x, y, long := f.px(q.X), f.py(q.Y), letter*float64(utf8.RuneCountInString(q.Label))
		for i := range 12 {
			anchor, at := "start", box{left: x + gap, right: x + gap + long}
			if i%2 == 1 {
				anchor, at = "end", box{left: x - gap - long, right: x - gap}
			}
			base := y + []float64{line + 2, 2 - gap, 4}[i%6/2]
			at.top, at.bottom = base-line+3, base+3
			if at.left < left || at.right > width || at.top < 0 || at.bottom > height-below || slices.ContainsFunc(taken, at.meets) || i < 6 && slices.ContainsFunc(better, at.meets) {
				continue
			}
			taken = append(taken, at)
			from := at.left
			if anchor == "end" {
				from = at.right
			}
			fmt.Fprintf(b, "<text class=\"label\" text-anchor=\"%s\" x=\"%s\" y=\"%s\">%s</text>\n", anchor, num(from), num(base), text(q.Label))
			break
		}
	}
}

// front are the points that no other one beats, in the order of x.
func (p Pareto) front() []Point {
	better := func(less bool, a, b float64) bool {
		if less {
			return a < b
		}
		return a > b
	}
	var front []Point
	for _, q := range p.Points {
		beaten := slices.ContainsFunc(p.Points, func(o Point) bool {
			return !better(p.LessX, q.X, o.X) && !better(p.LessY, q.Y, o.Y) && (better(p.LessX, o.X, q.X) || better(p.LessY, o.Y, q.Y))
		})
		if !beaten {
			front = append(front, q)
		}
	}
	slices.SortStableFunc(front, func(a, b Point) int {
		if a.X < b.X {
			return -1
		} else if a.X > b.X {
			return 1
		}
		return 0
	})
	return front
}

func (h Histogram) write(b *bytes.Buffer) {
	var points []Point
	for _, v := range h.Values {
		points = append(points, Point{X: v})
	}
	f := newFrame(h.X, Axis{Label: "count", To: 1}, []Series{{Points: points}, {Points: h.Marks}})
	bins := h.Bins
	if bins <= 0 {
		bins = 20
	}
	counts := make([]int, bins)
	most := 1
	for _, q := range points {
		if at, ok := f.x.at(q.X); ok && at >= 0 && at <= 1 {
			i := min(int(at*float64(bins)), bins-1)
			counts[i]++
			most = max(most, counts[i])
		}
	}
	f.y.From, f.y.To = 0, float64(most)*1.05
	f.y.Format = func(v float64) string {
		if v != math.Trunc(v) {
			return "" // there is no half a value
		}
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	open(b, h.Title, h.Note)
	f.axes(b)
	format := f.x.format()
	for i, n := range counts {
		if n == 0 {
			continue
		}
		x0, x1 := left+(width-left-right)*float64(i)/float64(bins), left+(width-left-right)*float64(i+1)/float64(bins)
		y := f.py(float64(n))
		fmt.Fprintf(b, "<rect class=\"f0\" x=\"%s\" y=\"%s\" width=\"%s\" height=\"%s\"><title>%s</title></rect>\n",
			num(x0+.5), num(y), num(max(x1-x0-1, .5)), num(height-below-y),
			text(fmt.Sprintf("%s to %s: %d", format(f.x.value(float64(i)/float64(bins))), format(f.x.value(float64(i+1)/float64(bins))), n)))
	}
	for i, m := range h.Marks {
		if at, ok := f.x.at(m.X); !ok || at < 0 || at > 1 {
			continue
		}
		x := f.px(m.X)
		fmt.Fprintf(b, "<path class=\"guide\" d=\"M%s %sV%s\"/>\n", num(x), num(top), num(height-below))
		anchor, at := "start", x+4
		if x > width*.6 {
			anchor, at = "end", x-4
		}
		fmt.Fprintf(b, "<text class=\"label\" text-anchor=\"%s\" x=\"%s\" y=\"%s\">%s</text>\n", anchor, num(at), num(top+10+14*float64(i)), text(m.Label))
	}
	b.WriteString("</svg>\n</figure>\n")
}

// open begins a plot.
func open(b *bytes.Buffer, title, note string) {
	fmt.Fprintf(b, "<figure>\n<figcaption>%s</figcaption>\n", text(title))
	if note != "" {
		fmt.Fprintf(b, "<p>%s</p>\n", text(note))
	}
	fmt.Fprintf(b, "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"%s\">\n", width, height, text(title))
}

func legend(b *bytes.Buffer, series []Series) {
	if !slices.ContainsFunc(series, func(s Series) bool { return s.Name != "" }) {
		return
	}
	b.WriteString("<div class=\"legend\">\n")
	for i, s := range series {
		fmt.Fprintf(b, "<span><svg viewBox=\"0 0 12 12\" aria-hidden=\"true\">%s</svg>%s</span>\n", shape(i, 6, 6, 4.5, ""), text(s.Name))
	}
	b.WriteString("</div>\n")
}

// newFrame fills in what the axes leave open.
func newFrame(x, y Axis, series []Series) *frame {
	f := &frame{x, y}
	var xs, ys []float64
	for _, s := range series {
		for _, p := range s.Points {
			xs, ys = append(xs, p.X), append(ys, p.Y)
		}
	}
	f.x.fit(xs)
	f.y.fit(ys)
	return f
}

// fit sets the ends so that all values fit, with some room.
func (a *Axis) fit(values []float64) {
	if a.To > a.From && (!a.Log || a.From > 0) {
		return
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if math.IsNaN(v) || math.IsInf(v, 0) || a.Log && v <= 0 {
			continue
		}
		low, high = min(low, v), max(high, v)
	}
	switch {
	case low > high:
		low, high = 0, 1
		if a.Log {
			low, high = 1, 10
		}
	case a.Log:
		room := math.Pow(high/low, .05) * 1.05
		low, high = low/room, high*room
	case low == high:
		room := max(math.Abs(low)*.1, 1e-9)
		if low == 0 {
			room = 1
		}
		low, high = low-room, high+room
	default:
		room := (high - low) * .05
		if low >= 0 && low-room < 0 {
			low, high = 0, high+room // zero is a border that means something
		} else {
			low, high = low-room, high+room
		}
	}
	a.From, a.To = low, high
}

// at is where a value is between the ends, from 0 to 1 inside; ok is false for what can't be drawn.
func (a *Axis) at(v float64) (at float64, ok bool) {
	if math.IsNaN(v) || math.IsInf(v, 0) || a.Log && v <= 0 {
		return 0, false
	}
	if a.Log {
		return math.Log(v/a.From) / math.Log(a.To/a.From), true
	}
	return (v - a.From) / (a.To - a.From), true
}

// value is the inverse of at.
func (a *Axis) value(at float64) float64 {
	if a.Log {
		return a.From * math.Pow(a.To/a.From, at)
	}
	return a.From + at*(a.To-a.From)
}

func (a *Axis) format() func(float64) string {
	if a.Format != nil {
		return a.Format
	}
	return func(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }
}

// ticks are round values between the ends.
func (a *Axis) ticks(most int) []float64 {
	var out []float64
	if a.Log {
		steps := []float64{1, 2, 5}
		if math.Log10(a.To/a.From) > float64(most)/2 {
			steps = steps[:1]
		}
		every := max(1, int(math.Ceil(math.Log10(a.To/a.From)/float64(most))))
		for e := int(math.Floor(math.Log10(a.From))); e <= int(math.Ceil(math.Log10(a.To))); e++ {
			if e%every != 0 {
				continue
			}
			for _, s := range steps {
				if v := s * math.Pow10(e); v >= a.From && v <= a.To {
					out = append(out, v)
				}
			}
		}
		return out
	}
	span := a.To - a.From
	step := math.Pow10(int(math.Floor(math.Log10(span / float64(most)))))
	for _, s := range []float64{1, 2, 5, 10} {
		if span/(step*s) <= float64(most) {
			step *= s
			break
		}
	}
	for i := math.Ceil(a.From/step - 1e-9); i*step <= a.To+step*1e-9; i++ {
		out = append(out, i*step+0) // which is 0 where i is -0
	}
	return out
}

func (f *frame) px(x float64) float64 {
	at, _ := f.x.at(x)
	return left + at*(width-left-right)
}

func (f *frame) py(y float64) float64 {
	at, _ := f.y.at(y)
	return height - below - at*(height-top-below)
}

// shows tells whether a point is inside.
func (f *frame) shows(p Point) bool {
	const edge = 1e-9
	x, okX := f.x.at(p.X)
	y, okY := f.y.at(p.Y)
	return okX && okY && x >= -edge && x <= 1+edge && y >= -edge && y <= 1+edge
}

func (f *frame) axes(b *bytes.Buffer) {
	format := f.y.format()
	for _, v := range f.y.ticks(5) {
		y := f.py(v)
		fmt.Fprintf(b, "<path class=\"grid\" d=\"M%s %sH%s\"/><text text-anchor=\"end\" x=\"%s\" y=\"%s\">%s</text>\n", num(left), num(y), num(width-right), num(left-6), num(y+4), text(format(v)))
	}
	format = f.x.format()
	for _, v := range f.x.ticks(6) {
		x := f.px(v)
		fmt.Fprintf(b, "<path class=\"grid\" d=\"M%s %sV%s\"/><text text-anchor=\"middle\" x=\"%s\" y=\"%s\">%s</text>\n", num(x), num(top), num(height-below), num(x), num(height-below+16), text(format(v)))
	}
	fmt.Fprintf(b, "<path class=\"axis\" fill=\"none\" d=\"M%s %sV%sH%s\"/>\n", num(left), num(top), num(height-below), num(width-right))
	if f.x.Label != "" {
		fmt.Fprintf(b, "<text text-anchor=\"middle\" x=\"%s\" y=\"%s\">%s</text>\n", num((left+width-right)/2), num(height-6), text(f.x.Label))
	}
	if f.y.Label != "" {
		y := (top + height - below) / 2
		fmt.Fprintf(b, "<text text-anchor=\"middle\" transform=\"rotate(-90 12 %s)\" x=\"12\" y=\"%s\">%s</text>\n", num(y), num(y), text(f.y.Label))
	}
}

func (f *frame) path(b *bytes.Buffer, class string, points []Point) {
	var d strings.Builder
	pen := "M"
	for _, p := range points {
		if !f.shows(p) {
			pen = "M" // a gap, not a line across what is missing
			continue
		}
		d.WriteString(pen + num(f.px(p.X)) + " " + num(f.py(p.Y)))
		pen = "L"
	}
	fmt.Fprintf(b, "<path class=\"%s\" d=\"%s\"/>\n", class, d.String())
}

func (f *frame) marks(b *bytes.Buffer, series int, points []Point, size float64) {
	for _, p := range points {
		if !f.shows(p) {
			continue
		}
		label := p.Label
		if label != "" {
			label += "\n"
		}
		label += f.x.format()(p.X) + ", " + f.y.format()(p.Y)
		b.WriteString(shape(series, f.px(p.X), f.py(p.Y), size, label) + "\n")
	}
}

// shape draws a series' mark: circle, square, triangle, diamond in turn.
func shape(series int, x, y, size float64, label string) string {
	series %= colours
	title := ""
	if label != "" {
		title = "<title>" + text(label) + "</title>"
	}
	var d string
	switch s := size * 1.1; series % 4 {
	case 0:
		return fmt.Sprintf("<circle class=\"point f%d\" cx=\"%s\" cy=\"%s\" r=\"%s\">%s</circle>", series, num(x), num(y), num(size), title)
	case 1:
		d = fmt.Sprintf("M%s %sh%sv%sh%sz", num(x-s), num(y-s), num(2*s), num(2*s), num(-2*s))
	case 2:
		d = fmt.Sprintf("M%s %sL%s %sH%sz", num(x), num(y-1.2*s), num(x+1.2*s), num(y+s), num(x-1.2*s))
	default:
		d = fmt.Sprintf("M%s %sL%s %sL%s %sL%s %sz", num(x), num(y-1.3*s), num(x+1.3*s), num(y), num(x), num(y+1.3*s), num(x-1.3*s), num(y))
	}
	return fmt.Sprintf("<path class=\"point f%d\" d=\"%s\">%s</path>", series, d, title)
}

// num writes a coordinate.
func num(v float64) string {
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
}
