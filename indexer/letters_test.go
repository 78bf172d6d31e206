package indexer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/httpd"
	"github.com/liverag/liverag/internal/httpd/httpdtest"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
	"github.com/twmb/franz-go/pkg/kgo"
)

// poison makes the model refuse inputs that hold a word, until it is told another one.
func (b *bed) poison(word string) {
	b.model.do(func(_ context.Context, inputs []string) error {
		for i, input := range inputs {
			if word != "" && strings.Contains(input, word) {
				return &embedder.Error{Op: "test", Input: i, Err: errors.New("refused")}
			}
		}
		return nil
	})
}

// reach waits until the live generation is past the positions.
func (b *bed) reach(positions []stream.Position) {
	b.t.Helper()
	if err := b.indexer.WaitApplied(b.ctx(), Live, positions); err != nil {
		b.t.Fatal(err)
	}
}

// open returns the open letters.
func (b *bed) open() []stream.Letter {
	b.t.Helper()
	letters, err := b.log.List(b.ctx(), stream.LetterQuery{})
	if err != nil {
		b.t.Fatal(err)
	}
	return letters
}

// redrive tries letters again and wants the outcomes.
func (b *bed) redrive(letters []stream.Letter, want ...string) {
	b.t.Helper()
	var ids, got []string
	for _, l := range letters {
		ids = append(ids, l.ID)
	}
	tried, err := b.indexer.Redrive(b.ctx(), ids...)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, one := range tried {
		got = append(got, one.Outcome)
	}
	if !slices.Equal(got, want) {
		b.t.Fatalf("outcomes %+v, want %v", tried, want)
	}
}

func TestARedrivenLetterIsIndexedAtItsOwnVersion(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("doc", "the old version"))
	b.poison("poison")
	at := b.append(upsert("doc", "poison that heals"))
	b.settle(upsert("other", "fine"))
	b.reach(at)
	letters := b.open()
	if len(letters) != 1 || letters[0].Key != "doc" || !slices.Equal(letters[0].Generations, []string{b.indexer.live.Load().name}) {
		t.Fatalf("letters %+v", letters)
	}
	g := b.indexer.live.Load().name
	held := b.current("doc")
	rejected := b.indexer.Rejected(b.ctx(), g, "doc", held.Version)
	if rejected == nil || rejected.Letter != letters[0].ID || rejected.Problem.Code != stream.CodeEmbedRejected || rejected.Version != stream.Version(0, at[0].Offset) || held.Text != "the old version" {
		t.Errorf("rejected %+v while %q is served", rejected, held.Text)
	}
	if r := b.indexer.Rejected(b.ctx(), g, "other", 1); r != nil {
		t.Errorf("%+v", r)
	}
	if r := b.indexer.Rejected(b.ctx(), "elsewhere", "doc", held.Version); r != nil {
		t.Errorf("another generation took it, and is said to have rejected it: %+v", r)
	}

	b.redrive(letters, "rejected") // it is as bad as before
	again := b.open()
	if len(again) != 1 || again[0].ID != letters[0].ID || again[0].Attempts != letters[0].Attempts+1 {
		t.Fatalf("after a try in vain: %+v", again)
	}
	b.stop()
	b.start(Config{})
	if r := b.indexer.Rejected(b.ctx(), g, "doc", held.Version); r == nil {
		t.Error("a restart forgot it")
	}
	ends, err := b.log.Ends(b.ctx())
	if err != nil {
		t.Fatal(err)
	}
	b.poison("")
	b.redrive(again, "redriven")
	if rev := b.current("doc"); rev.Text != "poison that heals" || rev.Version != stream.Version(0, at[0].Offset) {
		t.Errorf("version %d, %q", rev.Version, rev.Text)
	}
	if left := b.open(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	if after, err := b.log.Ends(b.ctx()); err != nil || after[0].Offset+after[1].Offset+after[2].Offset != ends[0].Offset+ends[1].Offset+ends[2].Offset {
		t.Errorf("a redrive wrote to the log: %v, %v", after, err)
	}
	if r := b.indexer.Rejected(b.ctx(), g, "doc", b.current("doc").Version); r != nil {
		t.Errorf("%+v", r)
	}
	if _, err := b.indexer.Redrive(b.ctx(), again[0].ID); !errors.Is(err, stream.ErrNoLetter) {
		t.Errorf("once more: %v", err)
	}
}

// TestAnOldLetterNeverOverwritesANewerVersion: neither one that is in the log when it is looked at, nor one that comes while the letter is being embedded.
func TestAnOldLetterNeverOverwritesANewerVersion(t *testing.T) {
	b := newBed(t)
	b.poison("poison")
	b.reach(b.append(upsert("edited", "poison one"), upsert("deleted", "poison two"), upsert("raced", "poison three"), upsert("hidden", "poison four"), upsert("vanished", "poison five")))
	b.settle(upsert("raced", "old raced"))
	b.reach(b.append(upsert("raced", "poison six")))
	b.settle(upsert("edited", "newer"), remove("deleted"), stream.Change{Kind: stream.Access, ID: "hidden", ACL: []string{"ann"}})
	letters := b.open()
	if len(letters) != 6 {
		t.Fatalf("%d letters: %+v", len(letters), letters)
	}
	byText := map[string]stream.Letter{}
	for _, l := range letters {
		whole, err := b.log.Letter(b.ctx(), l.ID)
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(string(whole.Raw.Value), "poison ")
		text, _, _ = strings.Cut(text, `"`)
		byText[text] = l
	}
	b.poison("")
	b.redrive([]stream.Letter{byText["one"], byText["two"], byText["three"], byText["four"]}, "superseded", "superseded", "superseded", "redriven")
	if rev := b.current("edited"); rev.Text != "newer" {
		t.Errorf("edited: %q", rev.Text)
	}
	if rev := b.current("deleted"); !rev.Deleted {
		t.Errorf("a deleted document is back: %q", rev.Text)
	}
	if rev := b.current("hidden"); rev.Text != "poison four" || !slices.Equal(rev.Readers(), []string{"ann"}) {
		t.Errorf("hidden: %q for %v", rev.Text, rev.Readers())
	}
	// The newer version is written and searchable while the letter's own is still with the model.
	raced := false
	b.model.do(func(_ context.Context, inputs []string) error {
		if !raced && strings.Contains(inputs[0], "poison six") {
			raced = true
			b.model.do(nil)
			b.settle(upsert("raced", "newest"))
		}
		return nil
	})
	b.redrive([]stream.Letter{byText["six"], byText["five"]}, "redriven", "redriven")
	if rev := b.current("raced"); rev.Text != "newest" || !raced {
		t.Errorf("raced: %q", rev.Text)
	}
	if rev := b.current("vanished"); rev.Text != "poison five" {
		t.Errorf("vanished: %q", rev.Text)
	}
	if left := b.open(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	// A replay of the log ends where the index is.
	info, err := b.indexer.Create(b.ctx(), "again", b.indexer.config.Recipe)
	if err != nil {
		t.Fatal(err)
	}
	b.eventually("replayed", func() bool { i, err := b.indexer.Info(info.Name); return err == nil && i.State == StateReady })
	for _, id := range []string{"edited", "deleted", "raced", "hidden", "vanished"} {
		if live, again := b.current(id), b.current(id, "again"); live.Text != again.Text || live.Version != again.Version || live.Deleted != again.Deleted {
			t.Errorf("%s is %d %q, a replay makes %d %q of it", id, live.Version, live.Text, again.Version, again.Text)
		}
	}
}

// TestALetterOfSeveralGenerations is tried in each that there still is.
func TestALetterOfSeveralGenerations(t *testing.T) {
	b := newBed(t)
	if _, err := b.indexer.Create(b.ctx(), "second", b.indexer.config.Recipe); err != nil {
		t.Fatal(err)
	}
	b.settle(upsert("doc", "fine"))
	b.poison("poison")
	at := b.append(upsert("doc", "poison"), upsert("lone", "poison"))
	b.reach(at)
	if err := b.indexer.WaitApplied(b.ctx(), "second", at); err != nil {
		t.Fatal(err)
	}
	letters := b.open()
	if len(letters) != 2 || len(letters[0].Generations) != 2 || len(letters[1].Generations) != 2 {
		t.Fatalf("letters %+v", letters)
	}
	slices.SortFunc(letters, func(a, b stream.Letter) int { return strings.Compare(a.Key, b.Key) })
	if _, err := b.indexer.Redrive(b.ctx(), letters[0].ID, "9-99"); !errors.Is(err, stream.ErrNoLetter) {
		t.Errorf("one of them is unknown: %v", err)
	}
	// The first refuses it for one more time, the second takes it.
	refused := false
	b.model.do(func(_ context.Context, inputs []string) error {
		if !refused {
			refused = true
			return &embedder.Error{Op: "test", Input: 0, Err: errors.New("refused")}
		}
		return nil
	})
	first, second := letters[0].Generations[0], letters[0].Generations[1]
	b.redrive(letters[:1], "rejected")
	if held := b.current("doc", first); held.Text != "fine" {
		t.Errorf("%s, which refused it, holds %q", first, held.Text)
	}
	if held := b.current("doc", second); held.Text != "poison" {
		t.Errorf("%s, which would have taken it, holds %q", second, held.Text)
	}
	b.redrive(letters[:1], "redriven")
	if held := b.current("doc", first); held.Text != "poison" {
		t.Errorf("%s holds %q", first, held.Text)
	}
	// One whose generations are gone was not indexed, and nobody is told that it was.
	lone := deadLetter(&stream.Change{ID: "lone", Position: letters[1].Position, Raw: &stream.Raw{Topic: "documents", Key: []byte("lone")}}, letters[1].Problem, 1)
	if err := b.log.Settle(b.ctx(), stream.Discarded, letters[1].ID); err != nil {
		t.Fatal(err)
	}
	if err := (signed{b.log, "dropped"}).Send(b.ctx(), lone); err != nil {
		t.Fatal(err)
	}
	b.redrive(b.open(), "superseded")
	if left := b.open(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

// TestNewContentSupersedesNoAccess: a letter of an access change that is none stays until there is a newer access change.
func TestNewContentSupersedesNoAccess(t *testing.T) {
	b := newBed(t)
	at := b.append(upsert("doc", "content"))
	client, err := kgo.NewClient(kgo.SeedBrokers(b.embedded.Brokers()...), kgo.Dialer(b.embedded.Dialer()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	record := &kgo.Record{Topic: "documents", Partition: at[0].Partition, Key: []byte("doc" + stream.AccessSuffix), Value: []byte(`{"acl":"ann"}`)}
	if err := client.ProduceSync(b.ctx(), record).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.reach([]stream.Position{{Partition: record.Partition, Offset: record.Offset}})
	b.settle(upsert("doc", "newer content"))
	letters := b.open()
	if len(letters) != 1 || letters[0].Key != "doc" {
		t.Fatalf("letters %+v", letters)
	}
	b.redrive(letters, "rejected")
	b.settle(stream.Change{Kind: stream.Access, ID: "doc", ACL: []string{"ann"}})
	b.redrive(letters, "superseded")
}

// TestDeadLettersAndVerifyOverHTTP is an operator's day: look, decide, look again. Every answer is held to the description.
func TestDeadLettersAndVerifyOverHTTP(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("a", "good"), upsert("b", "good"))
	b.poison("poison")
	b.reach(b.append(upsert("a", "poison one"), upsert("b", "poison two"), upsert("c", "poison three")))
	spec := httpdtest.Load(t, httpd.OpenAPI())
	s := httpd.New(httpd.Config{Routes: []func(*echo.Echo){b.indexer.Routes}, Logger: slog.New(slog.DiscardHandler)})
	ask := func(status int, method, path, target, body string, into any) {
		t.Helper()
		w := spec.Ask(t, s, httptest.NewRequest(method, target, strings.NewReader(body)), path)
		if w.Code != status {
			t.Fatalf("%s %s answered %d, want %d: %s", method, target, w.Code, status, w.Body)
		}
		if into != nil {
			if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
				t.Fatal(err)
			}
		}
	}
	type list struct {
		Letters []struct{ ID, Document, Code string }
		Next    string
	}
	type results struct {
		Results []struct{ ID, Outcome, Code string }
	}
	var all, page, rest, one list
	ask(200, "GET", "/dlq", "/dlq", "", &all)
	ask(200, "GET", "/dlq", "/dlq?limit=2", "", &page)
	ask(200, "GET", "/dlq", "/dlq?limit=2&after="+page.Next, "", &rest)
	ask(200, "GET", "/dlq", "/dlq?document=b&code=embed_rejected", "", &one)
	if len(all.Letters) != 3 || all.Next != "" || len(page.Letters) != 2 || len(rest.Letters) != 1 || rest.Letters[0] != all.Letters[2] || len(one.Letters) != 1 || one.Letters[0].Document != "b" {
		t.Fatalf("lists %+v %+v %+v %+v", all, page, rest, one)
	}
	var whole struct{ Key, Value string }
	ask(200, "GET", "/dlq/{id}", "/dlq/"+one.Letters[0].ID, "", &whole)
	if whole.Key != "b" || !strings.Contains(whole.Value, "poison two") {
		t.Errorf("%+v", whole)
	}
	ask(404, "GET", "/dlq/{id}", "/dlq/9-99", "", nil)
	ask(400, "GET", "/dlq", "/dlq?limit=0", "", nil)
	ask(400, "GET", "/dlq", "/dlq?state=open", "", nil)
	ask(400, "POST", "/dlq/redrive", "/dlq/redrive", "{}", nil)
	ask(400, "POST", "/dlq/redrive", "/dlq/redrive", `{"ids":["0-1"],"all":true}`, nil)
	ask(404, "POST", "/dlq/redrive", "/dlq/redrive", `{"ids":["9-99"]}`, nil)
	ask(404, "POST", "/dlq/discard", "/dlq/discard", `{"ids":["9-99"]}`, nil)

	var r results
	ask(200, "POST", "/dlq/redrive", "/dlq/redrive", `{"document":"b"}`, &r)
	if len(r.Results) != 1 || r.Results[0].Outcome != "rejected" || r.Results[0].Code != stream.CodeEmbedRejected {
		t.Errorf("%+v", r)
	}
	b.poison("")
	ask(200, "POST", "/dlq/redrive", "/dlq/redrive", fmt.Sprintf(`{"ids":[%q]}`, one.Letters[0].ID), &r)
	if len(r.Results) != 1 || r.Results[0].Outcome != "redriven" || b.current("b").Text != "poison two" {
		t.Errorf("%+v, %q", r, b.current("b").Text)
	}
	ask(200, "POST", "/dlq/discard", "/dlq/discard", `{"code":"embed_rejected"}`, &r)
	if len(r.Results) != 2 || r.Results[0].Outcome != "discarded" {
		t.Errorf("%+v", r)
	}
	var none list
	if ask(200, "GET", "/dlq", "/dlq", "", &none); len(none.Letters) != 0 {
		t.Errorf("%+v", none)
	}
	ask(200, "POST", "/dlq/discard", "/dlq/discard", `{"all":true}`, &r)

	var report struct {
		State        string
		Right        bool
		Documents    int
		DeadLettered int `json:"dead_lettered"`
		Orphaned     int
		Repaired     int
	}
	ask(404, "GET", "/verify", "/verify", "", nil)
	ask(404, "POST", "/verify", "/verify", `{"generation":"none"}`, nil)
	ask(400, "POST", "/verify", "/verify", `{"sample":7}`, nil)
	ask(400, "POST", "/verify", "/verify", `{"fix":true}`, nil)
	ghost := vectordb.Revision{Key: "ghost", Version: 1, Text: "boo", ContentType: stream.TextPlain}
	if err := b.store.Memory.Apply(b.ctx(), b.indexer.live.Load().name, vectordb.Write{Revisions: []vectordb.Revision{ghost}}); err != nil {
		t.Fatal(err)
	}
	for _, repair := range []bool{false, true} {
		ask(202, "POST", "/verify", "/verify", fmt.Sprintf(`{"rate":0,"repair":%v}`, repair), &report)
		b.eventually("verified", func() bool { ask(200, "GET", "/verify", "/verify", "", &report); return report.State != "running" })
		if report.State != "done" || report.Right != repair || report.DeadLettered != 2 || report.Orphaned != 1 || report.Documents != 3 {
			t.Errorf("%+v", report)
		}
	}
	ask(202, "POST", "/verify", "/verify", `{"rate":1}`, nil)
	ask(409, "POST", "/verify", "/verify", ``, nil)
	ask(204, "DELETE", "/verify", "/verify", "", nil)
	b.eventually("stopped", func() bool { ask(200, "GET", "/verify", "/verify", "", &report); return report.State == "stopped" })

	// One of a generation that is dropped meanwhile says so.
	if _, err := b.indexer.Create(b.ctx(), "doomed", b.indexer.config.Recipe); err != nil {
		t.Fatal(err)
	}
	ask(202, "POST", "/verify", "/verify", `{"generation":"doomed","rate":4}`, nil)
	if err := b.indexer.Drop(b.ctx(), "doomed"); err != nil {
		t.Fatal(err)
	}
	var failed struct{ State, Detail string }
	b.eventually("failed", func() bool { ask(200, "GET", "/verify", "/verify", "", &failed); return failed.State != "running" })
	if failed.State != "failed" || !strings.Contains(failed.Detail, "dropped") {
		t.Errorf("the generation was dropped: %+v", failed)
	}

	metrics := prometheus.NewRegistry()
	metrics.MustRegister(b.indexer.Metrics())
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range families {
		found[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
	}
	if v, ok := found["liverag_verify_missing"]; !ok || v != 0 || found["liverag_verify_orphaned"] != 1 || found["liverag_verify_repaired"] != 1 {
		t.Errorf("metrics %v", found)
	}
}
