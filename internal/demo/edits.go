package demo

import (
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// Edit is one small change to a document, with the query that shows it.
type Edit struct {
	// Document is the document after the edit; for a deletion, what it was.
	Document Document
	Deleted  bool
	// Summary tells a person what was done: "net/http: note added below func Get".
	Summary string
	// Query finds what was changed.
	Query string
	// Want is what the document says since this edit, and did not before. A hit for Query should hold it as soon as the edit
	// is searchable. Empty for a deletion.
	Want string
	// Gone is what the document said until this edit, if something was replaced: no hit may hold it any more. Of a deleted
	// document no hit may come at all.
	Gone string
}

// note is something to say about a function or a type, in two versions that replace each other.
type note struct {
	document, heading string
	// sentence means that the text replaces the first sentence below the heading. Otherwise it is a paragraph of its own
	// after the first.
	sentence bool
	texts    [2]string
	queries  [2]string
}

// Edits yields edits without end, as people make them: a usage note is added, a sentence is put in other words, later
// a note is replaced by another. Each changes one paragraph of one document. In the middle of each round through the notes
// a document is deleted, and at the round's end it is created again, as it was. The same seed gives the same edits.
//
// The notes are about the standard library; for a corpus without it they are general ones about liverag itself.
// documents is not changed.
func Edits(documents []Document, seed uint64) iter.Seq[Edit] {
	return func(yield func(Edit) bool) {
		current := make(map[string]Document, len(documents))
		for _, d := range documents {
			current[d.ID] = d
		}
		notes, removed := planEdits(documents, current)
		if len(notes) == 0 {
			return
		}
		random := rand.New(rand.NewPCG(seed, 0))
		for round := 0; ; round++ {
			for i, n := range random.Perm(len(notes)) {
				edit := notes[n].apply(current[notes[n].document], round)
				current[edit.Document.ID] = edit.Document
				if !yield(edit) {
					return
				}
				if i == len(notes)/2 && removed != nil {
					if !yield(Edit{Document: *removed, Deleted: true, Summary: removed.ID + ": deleted", Query: aboutRemoved(*removed)}) {
						return
					}
				}
			}
			if removed != nil {
				again := Edit{Document: *removed, Summary: removed.ID + ": created again", Query: aboutRemoved(*removed), Want: opening(removed.Text)}
				if !yield(again) {
					return
				}
			}
		}
	}
}

// Restore gives the original documents that the edits touched, in the originals' order: putting them undoes the edits.
func Restore(originals []Document, edits []Edit) []Document {
	touched := make(map[string]bool)
	for _, e := range edits {
		touched[e.Document.ID] = true
	}
	return slices.DeleteFunc(slices.Clone(originals), func(d Document) bool { return !touched[d.ID] })
}

// planEdits chooses the notes that fit the corpus and the document to delete, which has no note.
func planEdits(documents []Document, byID map[string]Document) (notes []note, removed *Document) {
	noted := make(map[string]bool)
	for _, n := range standardNotes {
		if _, ok := byID[n.document]; !ok {
			n.document = packageOf(n.document)
		}
		if _, _, ok := section(byID[n.document].Text, n.heading); ok {
			notes = append(notes, n)
			noted[n.document] = true
		}
	}
	if len(notes) == 0 && len(documents) > 0 {
		// The last document is left for the deletion.
		for i, n := range generalNotes {
			n.document = documents[i%max(len(documents)-1, 1)].ID
			notes = append(notes, n)
			noted[n.document] = true
		}
	}
	if d, ok := byID["container/ring"]; ok && !noted[d.ID] {
		return notes, &d
	}
	for _, d := range slices.Backward(documents) {
		if !noted[d.ID] {
			return notes, &d
		}
	}
	return notes, nil
}

// aboutRemoved is the query that finds the document which Edits deletes.
func aboutRemoved(d Document) string {
	if d.ID == "container/ring" {
		return "circular list without beginning or end"
	}
	return d.Title
}

// apply makes the note's edit for a round: its first text in round 0, then the one in place of the other.
func (n note) apply(d Document, round int) Edit {
	text := n.texts[round%2]
	edit := Edit{Query: n.queries[round%2], Want: text}
	place := n.heading
	if place == "" {
		place = "the title"
	}
	switch {
	case round > 0:
		edit.Gone = n.texts[(round-1)%2]
		d.Text = strings.Replace(d.Text, edit.Gone, text, 1)
		edit.Summary = d.ID + ": note replaced below " + place
		if n.sentence {
			edit.Summary = d.ID + ": sentence put in other words below " + place
		}
	case n.sentence:
		start, end, _ := section(d.Text, n.heading)
		edit.Gone = firstSentence(d.Text[start:end])
		d.Text = d.Text[:start] + text + d.Text[start+len(edit.Gone):]
		edit.Summary = d.ID + ": sentence put in other words below " + place
	default:
		_, end, ok := section(d.Text, n.heading)
		if !ok {
			end = len(strings.TrimRight(d.Text, "\n"))
		}
		d.Text = d.Text[:end] + "\n\n" + text + d.Text[end:]
		edit.Summary = d.ID + ": note added below " + place
	}
	// The caller's documents stay as they were.
	d.Metadata = maps.Clone(d.Metadata)
	edit.Document = d
	return edit
}

// section finds the first paragraph of prose below a heading ("func Get", at any level); an empty heading is the
// document's beginning. It is not ok if there is no such heading, or no prose before the next one.
func section(text, heading string) (start, end int, ok bool) {
	below, fenced := heading == "", false
	for at := 0; at < len(text); {
		next := len(text)
		if i := strings.IndexByte(text[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		line := strings.TrimSpace(text[at:next])
		switch {
		case strings.HasPrefix(line, "```"):
			fenced = !fenced
		case fenced || line == "":
		case line[0] == '#':
			if below && heading != "" {
				return 0, 0, false
			}
			below = below || strings.TrimLeft(line, "# ") == heading
		case below:
			end = len(text)
			if i := strings.Index(text[at:], "\n\n"); i >= 0 {
				end = at + i
			}
			return at, end, true
		}
		at = next
	}
	return 0, 0, false
}

// firstSentence is the beginning of a paragraph up to its first full stop before a space.
func firstSentence(paragraph string) string {
	if i := strings.Index(paragraph, ". "); i >= 0 {
		return paragraph[:i+1]
	}
	return strings.TrimRight(paragraph, "\n")
}

// opening is the first paragraph of prose of a document.
func opening(text string) string {
	if start, end, ok := section(text, ""); ok {
		return strings.TrimRight(text[start:end], "\n")
	}
	return strings.TrimSpace(text)
}

var standardNotes = []note{
	{"net/http.Response", "func Get", false, [2]string{
		"Usage note: Get goes through DefaultClient, which never gives up on a slow server. A service should build one Client with a Timeout and share it.",
		"Usage note: a Client is meant to be shared. Building one for every call throws away its idle connections, and each request then pays for a new handshake.",
	}, [2]string{"does the default client give up on a slow server", "cost of building a new http client for every call"}},
	{"net/http", "func ListenAndServe", false, [2]string{
		"Usage note: a server started this way has no timeouts at all, so one idle stranger can hold a goroutine for days. Fill in a Server and call its own method instead.",
		"Usage note: the call blocks for as long as the server runs, and its error is never nil. A program that has more to do starts it in a goroutine.",
	}, [2]string{"server started without timeouts, idle stranger holds a goroutine for days", "call blocks for as long as the web server runs, start it in a goroutine"}},
	{"net/http.Server", "func (*Server) Shutdown", false, [2]string{
		"Usage note: give it a context with a deadline, or one download that never ends keeps the old process alive through the whole deployment.",
		"Usage note: websockets are not waited for. Tell their goroutines to say goodbye before the call, through a function registered with RegisterOnShutdown.",
	}, [2]string{"endless download keeps the old process alive during deployment", "say goodbye to websockets before the server stops"}},
	{"strings", "func Split", false, [2]string{
		"Usage note: splitting an empty string gives one empty element, not none. Test for the empty string first where that matters.",
		"Usage note: where only the part before the first separator is wanted, Cut is cheaper and says whether there was one.",
	}, [2]string{"why does splitting an empty string give one element", "cheaper way to take the part before the first separator"}},
	{"strconv", "func Atoi", false, [2]string{
		"Usage note: spaces around the digits are an error. Trim what people typed into a form before converting it.",
		"Usage note: only decimal digits are read, so 0x1f fails; ParseInt with base zero understands such prefixes.",
	}, [2]string{"converting digits with spaces around them that people typed into a form", "how to read 0x1f with a prefix as a number"}},
	{"os", "func ReadFile", false, [2]string{
		"Usage note: the whole file is held in memory. A log of many gigabytes is better opened and read line by line.",
		"Usage note: the size that the system reports is a hint only, so files below /proc, which claim to be empty, are read in full.",
	}, [2]string{"reading a log of many gigabytes without holding it in memory", "read files below /proc that claim to be empty"}},
	{"errors", "func Is", true, [2]string{
		"Is tells whether err, or anything that was wrapped on the way up, equals target; a plain comparison with == misses every wrapped error.",
		"Is answers whether target is anywhere in the tree of causes below err, however many layers have added their words to it.",
	}, [2]string{"plain comparison with == misses a wrapped error", "is the target anywhere in the tree of causes"}},
	{"context", "func WithTimeout", false, [2]string{
		"Usage note: defer the cancel function in the very next line. Without it the timer lives on until the deadline, even if the work was done long before.",
		"Usage note: a child can shorten its parent's limit and never extend it, so the tighter of the two wins.",
	}, [2]string{"timer lives on after the work was done because cancel was not deferred", "can a child extend its parent's time limit"}},
	{"context", "func WithValue", false, [2]string{
		"Usage note: what a function can't work without belongs in its parameters. A context is for what travels along, such as the id of a trace.",
		"Usage note: looking a value up walks through every parent, so a chain of twenty costs twenty comparisons a look-up.",
	}, [2]string{"what belongs in parameters and what travels in a context, id of a trace", "cost of looking up a value in a long chain of contexts"}},
	{"sync.Mutex", "type Mutex", false, [2]string{
		"Usage note: it does not know who holds it. A goroutine that locks it twice waits for itself for ever.",
		"Usage note: keep it for memory. Holding it while a request is on the network makes every other goroutine wait for a stranger.",
	}, [2]string{"goroutine that locks twice waits for itself", "holding a lock while a request is on the network"}},
	{"sync.WaitGroup", "func (*WaitGroup) Add", false, [2]string{
		"Usage note: count up before the goroutine starts. Counting inside it is a race with the one who waits, and who may be gone by then.",
		"Usage note: hand it on by pointer; a copy has its own counter, which nobody ever counts down.",
	}, [2]string{"counting up inside the goroutine is a race with the one who waits", "wait group handed on as a copy is never counted down"}},
	{"encoding/json", "func Unmarshal", false, [2]string{
		"Usage note: a number that goes into an empty interface becomes a float64, so identifiers above 2^53 lose their last digits. Decode them into an int64.",
		"Usage note: a field that the input does not mention keeps the value it had, so decode into a fresh value unless defaults are meant.",
	}, [2]string{"large identifiers lose their last digits when decoded", "field not mentioned in the input keeps its old value"}},
	{"encoding/json", "func Marshal", true, [2]string{
		"Marshal turns v into JSON text, with the keys of every map in sorted order, so that equal values give equal bytes.",
		"Marshal writes v as JSON in one go; the whole text is in memory, so a very large value is better streamed by an Encoder.",
	}, [2]string{"do equal maps give equal bytes, keys in sorted order", "stream a very large value as JSON instead of one text in memory"}},
	{"regexp.Regexp", "func MustCompile", false, [2]string{
		"Usage note: compile a pattern once, in a variable of the package. Compiling it for every line of a file costs far more than matching does.",
		"Usage note: there is no look-ahead and no back-reference in this syntax. What needs them is better parsed by hand.",
	}, [2]string{"compiling a pattern for every line is slow", "look-ahead and back-references in patterns"}},
	{"os/exec.Cmd", "func Command", false, [2]string{
		"Usage note: no shell reads the arguments, so pipes, quotes and wildcards reach the program as they are.",
		"Usage note: arguments that users supply are safe from a shell here, yet a leading dash still makes an option of them; put -- before them.",
	}, [2]string{"why are pipes and wildcards not interpreted in the arguments", "user supplied argument with a leading dash becomes an option"}},
	{"slices", "func Sort", false, [2]string{
		"Usage note: do not sort a slice that others are reading. Clone it first; sorting moves elements in place.",
		"Usage note: to have the largest first, sort and then call Reverse, or use SortFunc with the arguments exchanged.",
	}, [2]string{"sorting a slice that others are reading", "largest element first"}},
	{"maps", "func Keys", false, [2]string{
		"Usage note: the order changes from run to run, on purpose. Pass the result to slices.Sorted wherever output must be reproducible.",
		"Usage note: adding to the map during the loop is allowed, but whether the new keys turn up is anybody's guess.",
	}, [2]string{"reproducible output from a map whose order changes from run to run", "adding new keys to the map during the loop"}},
	{"io", "func ReadAll", false, [2]string{
		"Usage note: never use it on what a stranger sends without a limit. A LimitReader in front keeps one upload from filling the memory.",
		"Usage note: its buffer grows as it reads, which copies the bytes several times; where the size is known, ReadFull into a slice of that size is faster.",
	}, [2]string{"keep one upload of a stranger from filling the memory", "faster than a growing buffer when the size is known"}},
	{"fmt", "func Errorf", false, [2]string{
		"Usage note: say what was tried, not that it failed: \"open settings\" reads better in a chain of causes than \"failed to open settings\".",
		"Usage note: wrapping makes the inner error part of what callers may rely on. Use %v instead of %w to keep it an inner matter.",
	}, [2]string{"open settings, in a chain of causes", "when not to wrap, keep the inner error an inner matter"}},
	{"path/filepath", "func Join", false, [2]string{
		"Usage note: the result is cleaned, so a part with two dots climbs out of the directory before it. Check untrusted parts with IsLocal.",
		"Usage note: an absolute part in the middle does not start afresh, as it does in some other languages; it is appended like any other.",
	}, [2]string{"part with two dots climbs out of the directory", "absolute part in the middle of a joined path"}},
}

var generalNotes = []note{
	{"", "", false, [2]string{
		"Reading note: a deletion is a change like any other. It is in the log, and it is done when no search returns the document any more.",
		"Reading note: deleting a document that was never there is no mistake, so a producer may repeat a deletion as often as it likes.",
	}, [2]string{"when is a deletion done", "may a producer repeat a deletion"}},
	{"", "", false, [2]string{
		"Reading note: going back to the former generation moves a name and builds nothing, so it takes no longer than a request.",
		"Reading note: two generations can answer side by side, so a new recipe is judged on real questions before it goes live.",
	}, [2]string{"how long does going back to the former generation take", "judge a new recipe on real questions before it goes live"}},
	{"", "", false, [2]string{
		"Reading note: editing one paragraph pays for that paragraph. The chunks whose text is the same keep their vectors.",
		"Reading note: a new title or new metadata costs no embedding, since neither is part of what the model reads twice.",
	}, [2]string{"what does editing one paragraph pay for", "does a new title cost any embedding"}},
	{"", "", false, [2]string{
		"Reading note: a token from a write can be passed to a search, which then waits until it can see that write.",
		"Reading note: an answer says as of when it is true, so a caller can decide whether that is recent enough.",
	}, [2]string{"search that waits until it can see my own write", "as of when is an answer true"}},
}
