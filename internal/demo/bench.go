package demo

import (
	"fmt"
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"sort"
	"strings"
)

// BenchDocuments yields n documents for measuring: see BenchDocument.
func BenchDocuments(n int, seed uint64) iter.Seq[Document] {
	return func(yield func(Document) bool) {
		for i := range n {
			if !yield(BenchDocument(seed, i)) {
				return
			}
		}
	}
}

// BenchDocument writes the i-th of endlessly many Markdown documents: 3 to 6 KB (three chunks of 400 tokens or so) with
// headings, paragraphs, lists, code and a table now and then. The sentences are English in form; how often a word comes follows
// Zipf's law, each document has a few words of its own subject, and coined names make the vocabulary grow with the
// number of documents, as it does in real text. That is what makes an inverted index and a cache behave as they do at work.
//
// Seed and i decide every byte, on every machine: there is no floating-point number in it.
func BenchDocument(seed uint64, i int) Document {
	w := newWriter(seed, i)
	w.document()
	return Document{
		ID:    fmt.Sprintf("bench/%08d.md", i),
		Title: w.title,
		Text:  w.text.String(),
		Metadata: map[string]any{
			"kind": "bench",
			"team": benchNouns[w.random.IntN(12)],
			"year": float64(2015 + w.random.IntN(12)),
		},
	}
}

// BenchQuery is a query of a few words about the subject of the i-th document of the same seed.
func BenchQuery(seed uint64, i int) string {
	w := newWriter(seed, i)
	return fmt.Sprintf("how does the %s of %s %s the %s", w.subject[0], w.coined[0], w.pick(benchVerbs), w.subject[1])
}

// EditParagraph changes one sentence in one paragraph of a document's prose and leaves every other byte as it is.
// Which one, and to what, i and the text decide; the result is never the text itself. A text without prose gets a paragraph more.
func EditParagraph(text string, i int) string {
	sum := fnv.New64a()
	sum.Write([]byte(text))
	w := newWriter(sum.Sum64(), i)
	type span struct{ start, end int }
	var prose []span
	fenced := false
	for at := 0; at < len(text); {
		end := len(text)
		if n := strings.Index(text[at:], "\n\n"); n >= 0 {
			end = at + n
		}
		block := text[at:end]
		inside := fenced
		if strings.Count("\n"+block, "\n```")%2 == 1 {
			fenced = !fenced
		}
		if !inside && !fenced && block != "" && !strings.HasPrefix(block, "```") && !strings.ContainsRune("\n#->|*1", rune(block[0])) {
			prose = append(prose, span{at, end})
		}
		at = min(end+2, len(text))
	}
	if len(prose) == 0 {
		return strings.TrimRight(text, "\n") + "\n\n" + w.sentence() + "\n"
	}
	p := prose[int(uint(i)%uint(len(prose)))]
	sentences := strings.SplitAfter(text[p.start:p.end], ". ")
	n := w.random.IntN(len(sentences))
	space := ""
	if strings.HasSuffix(sentences[n], " ") {
		space = " "
	}
	old := sentences[n]
	for sentences[n] == old {
		sentences[n] = w.sentence() + space
	}
	return text[:p.start] + strings.Join(sentences, "") + text[p.end:]
}

// writer writes one document.
type writer struct {
	random *rand.Rand
	text   strings.Builder
	title  string
	// subject are the words this document is about, coined the names that hardly any other has.
	subject []string
	coined  []string
}

func newWriter(seed uint64, i int) *writer {
	w := &writer{random: rand.New(rand.NewPCG(seed, uint64(i)))}
	for range 6 {
		w.subject = append(w.subject, benchNouns[w.random.IntN(len(benchNouns))])
	}
	for range 3 {
		w.coined = append(w.coined, w.name())
	}
	return w
}

// document writes all of it.
func (w *writer) document() {
	length := 3300 + w.random.IntN(2000)
	w.title = capital(w.pick(benchAdjectives) + " " + plural(w.subject[0]) + " in " + w.coined[0])
	fmt.Fprintf(&w.text, "# %s\n\n", w.title)
	w.paragraph()
	for w.text.Len() < length {
		fmt.Fprintf(&w.text, "## %s\n\n", w.heading())
		for range 1 + w.random.IntN(3) {
			w.paragraph()
		}
		switch w.random.IntN(6) {
		case 0, 1:
			w.list()
		case 2:
			w.code()
		case 3:
			fmt.Fprintf(&w.text, "### %s\n\n", w.heading())
			w.paragraph()
		case 4:
			if w.random.IntN(2) == 0 {
				w.table()
			}
		}
	}
}

func (w *writer) heading() string {
	switch w.random.IntN(4) {
	case 0:
		return capital(w.noun()) + " and " + w.noun()
	case 1:
		return "How to " + w.pick(benchVerbs) + " the " + w.noun()
	case 2:
		return capital(w.pick(benchAdjectives)) + " " + plural(w.noun())
	}
	return "The " + w.noun() + " of " + w.coin()
}

func (w *writer) paragraph() {
	for i := range 2 + w.random.IntN(3) {
		if i > 0 {
			w.text.WriteByte(' ')
		}
		w.text.WriteString(w.sentence())
	}
	w.text.WriteString("\n\n")
}

func (w *writer) list() {
	numbered := w.random.IntN(3) == 0
	for i := range 3 + w.random.IntN(3) {
		if numbered {
			fmt.Fprintf(&w.text, "%d. ", i+1)
		} else {
			w.text.WriteString("- ")
		}
		w.text.WriteString(w.sentence() + "\n")
	}
	w.text.WriteByte('\n')
}

func (w *writer) code() {
	if w.random.IntN(2) == 0 {
		fmt.Fprintf(&w.text, "```yaml\n%s:\n", w.noun())
		for range 3 + w.random.IntN(3) {
			fmt.Fprintf(&w.text, "  %s_%s: %d\n", w.noun(), w.noun(), w.number())
		}
		w.text.WriteString("```\n\n")
		return
	}
	noun, verb := w.noun(), w.pick(benchVerbs)
	fmt.Fprintf(&w.text, "```go\nfunc %s%s(%s int) error {\n\tif %s > %d {\n\t\treturn errors.New(%q)\n\t}\n\treturn %s.%s(%s)\n}\n```\n\n",
		verb, capital(noun), noun, noun, w.number(), w.pick(benchAdjectives)+" "+noun, strings.ToLower(w.coin()), capital(w.pick(benchVerbs)), noun)
}

func (w *writer) table() {
	fmt.Fprintf(&w.text, "| %s | %s | %s |\n|---|---|---|\n", w.noun(), w.noun(), w.noun())
	for range 3 + w.random.IntN(3) {
		fmt.Fprintf(&w.text, "| %s | %d | %s |\n", w.coin(), w.number(), w.pick(benchAdjectives))
	}
	w.text.WriteByte('\n')
}

// sentence is one sentence with its full stop.
func (w *writer) sentence() string {
	var s string
	switch w.random.IntN(10) {
	case 0, 1:
		s = fmt.Sprintf("the %s %s %s the %s %s", w.pick(benchAdjectives), w.noun(), third(w.pick(benchVerbs)), w.noun(), w.place())
	case 2:
		s = fmt.Sprintf("%s, each %s %s %d %s before the %s can %s", w.pick(benchAdverbs), w.noun(), third(w.pick(benchVerbs)), 1+w.number(), plural(w.noun()), w.noun(), w.pick(benchVerbs))
	case 3:
		s = fmt.Sprintf("when %s %s, the %s of %s must %s it, or the %s is lost", article(w.noun()), third(w.pick(benchVerbs)), w.noun(), w.coin(), w.pick(benchVerbs), w.noun())
	case 4:
		s = fmt.Sprintf("if `%s.%s` is above %d, %s are %s and nobody has to %s them", w.coin(), w.noun(), w.number(), plural(w.noun()), w.pick(benchAdjectives), w.pick(benchVerbs))
	case 5:
		s = fmt.Sprintf("it is not the %s but the %s that decides how fast %s %s", w.noun(), w.noun(), plural(w.noun()), w.pick(benchVerbs))
	case 6:
		s = fmt.Sprintf("%s was made for %s %s, so its %s %s %s %s", w.coin(), w.pick(benchAdjectives), plural(w.noun()), w.noun(), w.pick(benchAdverbs), third(w.pick(benchVerbs)), w.place())
	case 7:
		s = fmt.Sprintf("there are %d %s in %s, and every %s of them is %s", 1+w.number(), plural(w.noun()), article(w.noun()), w.noun(), w.pick(benchAdjectives))
	case 8:
		s = fmt.Sprintf("to %s %s %s, first %s its %s and then wait for the %s", w.pick(benchVerbs), article(w.pick(benchAdjectives)), w.noun(), w.pick(benchVerbs), w.noun(), w.noun())
	default:
		s = fmt.Sprintf("%s without %s is %s %s, which is why we %s it %s", article(w.noun()), article(w.noun()), w.pick(benchAdverbs), w.pick(benchAdjectives), w.pick(benchVerbs), w.place())
	}
	return capital(s) + "."
}

func (w *writer) place() string {
	switch w.random.IntN(4) {
	case 0:
		return "in the " + w.noun()
	case 1:
		return "between two " + plural(w.noun())
	case 2:
		return "after the " + w.noun() + " of " + w.coin()
	}
	return "for every " + w.pick(benchAdjectives) + " " + w.noun()
}

// noun is a word of the document's subject one time in three, else any, the common ones more often.
func (w *writer) noun() string {
	if w.random.IntN(3) == 0 {
		return w.subject[w.random.IntN(len(w.subject))]
	}
	return w.pick(benchNouns)
}

func (w *writer) coin() string { return w.coined[w.random.IntN(len(w.coined))] }

// name coins one of a million and a half names.
func (w *writer) name() string {
	var b strings.Builder
	for range 2 + w.random.IntN(2) {
		b.WriteString(benchSyllables[w.random.IntN(len(benchSyllables))])
	}
	b.WriteString(benchEndings[w.random.IntN(len(benchEndings))])
	return capital(b.String())
}

// number is small more often than large.
func (w *writer) number() int { return 1 + w.random.IntN(1+w.random.IntN(1+w.random.IntN(5000))) }

// pick takes a word, the r-th of the list with a probability in proportion to 1/(r+2).
func (w *writer) pick(words []string) string {
	total := zipf[len(words)-1]
	drawn := w.random.Uint64N(total)
	return words[sort.Search(len(words), func(i int) bool { return zipf[i] > drawn })]
}

// zipf[r] is the sum of the weights of the words up to rank r, as whole numbers so that every machine agrees.
var zipf = func() []uint64 {
	sums := make([]uint64, 512)
	var sum uint64
	for r := range sums {
		sum += 1 << 32 / uint64(r+2)
		sums[r] = sum
	}
	return sums
}()

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func plural(noun string) string {
	switch {
	case strings.HasSuffix(noun, "s"), strings.HasSuffix(noun, "x"), strings.HasSuffix(noun, "ch"), strings.HasSuffix(noun, "sh"):
		return noun + "es"
	case strings.HasSuffix(noun, "y") && !strings.HasSuffix(noun, "ay") && !strings.HasSuffix(noun, "ey"):
		return noun[:len(noun)-1] + "ies"
	}
	return noun + "s"
}

// article puts "a" or "an" before a word.
func article(word string) string {
	if strings.ContainsRune("aeio", rune(word[0])) || word == "urban" {
		return "an " + word
	}
	return "a " + word
}

// third is a verb's form for he, she and it; it goes by the same rules as a noun's plural.
func third(verb string) string { return plural(verb) }

// The words, common ones first.
var (
	benchNouns = strings.Fields(`
		service user request message value table record account order report team project system server client job
		queue worker event change version file folder page line result answer question field column index key
		token session password invoice payment customer product price discount refund contract supplier delivery parcel
		warehouse shelf truck driver route bridge harbour ship captain crew cargo anchor rope sail storm wind
		cloud river lake valley mountain forest field meadow farm barn horse sheep goat shepherd wool loom
		weaver cloth needle thread button collar sleeve pocket coat glove boot leather tailor mirror window door
		lock hinge roof chimney brick mason carpenter plank nail hammer saw chisel bench workshop lamp candle
		kitchen oven kettle cup plate spoon recipe flour butter apple pear cherry lemon honey bread baker
		market coin purse merchant guild ledger clerk stamp letter envelope courier postbox telegraph cable signal antenna
		radio speaker microphone camera lens shutter frame picture canvas brush painter gallery museum statue marble sculptor
		theatre stage actor curtain orchestra violin flute drum trumpet composer melody chord choir verse poem novel
		library shelfmark catalogue librarian archive manuscript scroll chapter margin footnote editor printer press ink paper binder
		school teacher pupil lesson exam grade pencil ruler compass triangle circle square number fraction equation theorem
		proof lemma graph vertex edge tree leaf branch root node cycle matrix vector tensor kernel gradient
		model sample cluster outlier median quantile histogram curve slope threshold alarm sensor probe gauge meter dial
		valve pump pipe tank filter boiler turbine generator battery motor gear axle wheel brake clutch lever
		engine piston cylinder fuel exhaust radiator thermostat fan heater cooler compressor pressure temperature humidity voltage current
		circuit resistor capacitor transistor relay switch fuse socket plug wire conductor insulator magnet coil transformer rectifier
		planet moon comet orbit telescope galaxy crater meteor eclipse horizon equator glacier volcano canyon island reef
		doctor nurse patient ward clinic vaccine symptom fever bandage surgeon scalpel pharmacy tablet dose allergy pulse
		lawyer judge verdict witness clause statute treaty border customs passport visa embassy minister senator ballot budget`)
	benchVerbs = strings.Fields(`
		use need show keep move open close send read write call start stop return add remove change check find follow
		hold join load save build store update create carry cover count match order repair replace restart schedule measure
		reserve deliver collect inspect approve reject publish archive compress encrypt decode translate summarise compare merge split
		rotate balance throttle pause resume cancel confirm register invite promote retire migrate mirror restore snapshot verify
		label annotate classify filter rank sort group index search cache warm drain flush seal anchor hoist paint
		polish sharpen weave fold press bake stir pour weigh plough harvest store trade borrow lend audit negotiate
		sketch rehearse compose conduct record broadcast transmit receive amplify calibrate adjust align tighten loosen lubricate insulate`)
	benchAdjectives = strings.Fields(`
		new old large small long short open closed early late fast slow common rare simple complex public private local remote
		empty full heavy light narrow wide deep shallow strong weak warm cold dry wet bright dark quiet loud
		safe fragile stable volatile frequent occasional regular irregular optional mandatory temporary permanent internal external primary secondary
		central distant parallel serial nested flat dense sparse ordered random signed sealed frozen molten polished rough
		ancient modern rural urban coastal northern southern eastern western seasonal annual monthly daily hourly nightly sudden
		gradual generous modest precise vague faithful stubborn patient restless elegant clumsy thrifty lavish brittle elastic`)
	benchAdverbs = strings.Fields(`
		often usually always sometimes rarely never soon later quickly slowly quietly safely partly fully nearly hardly
		again together apart early twice silently gradually suddenly reliably carefully cheaply automatically deliberately occasionally eventually`)
	benchSyllables = strings.Fields(`
		ar bel cor dan el fal gor hal is jor kal lin mor nel or pal quin ros sel tor
		ul var wen xan yor zel bra cri dro fle gra hre kla lu mi no pra stri tha vo
		ash ber cho dul emb fir gim hol ing jas kest lor mun nith ost per rud sim tun ves`)
	benchEndings = strings.Fields(`a en is on ar eth ix um or yn ade ell ian ost ul eke`)
)
