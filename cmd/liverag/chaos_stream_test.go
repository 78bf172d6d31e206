package main

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// history is a real history of edits, as records of a topic, and sentences out of it to ask for.
type history struct {
	records   []historical
	sentences []string
}

// historical is one record: what a key holds from then on; a nil value deletes.
type historical struct {
	key   string
	value []byte
}

func (h historical) record(topic string) *kgo.Record {
	return &kgo.Record{Topic: topic, Key: []byte(h.key), Value: h.value}
}

// documentOf is the value of a record.
func documentOf(text string) []byte {
	value, err := json.Marshal(map[string]any{"text": text, "content_type": "text/markdown"})
	if err != nil {
		panic(err) // a string always has a JSON
	}
	return value
}

// needHistory reads docs-stream-a of the evaluation data. A rename becomes a deletion of the old key and a document at the new one.
func needHistory(t testing.TB) history {
	t.Helper()
	shared := os.Getenv("LIVERAG_SHARED")
	if shared == "" {
		t.Skip("LIVERAG_SHARED is not set: the recorded history is not here")
	}
	file, err := os.Open(filepath.Join(shared, "data", "streams", "docs-stream-a", "changes.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var h history
	lines := bufio.NewScanner(unzipped)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var change struct {
			Op      string `json:"op"`
			Key     string `json:"key"`
			OldKey  string `json:"old_key"`
			Content string `json:"content"`
		}
		if err := json.Unmarshal(lines.Bytes(), &change); err != nil {
			t.Fatal(err)
		}
		switch change.Op {
		case "delete":
			h.records = append(h.records, historical{change.Key, nil})
			continue
		case "rename":
			h.records = append(h.records, historical{change.OldKey, nil})
		}
		h.records = append(h.records, historical{change.Key, documentOf(change.Content)})
		for line := range strings.Lines(change.Content) {
			if line = strings.TrimSpace(line); len(line) > 60 && len(line) < 400 && len(h.records)%7 == 0 {
				h.sentences = append(h.sentences, line)
			}
		}
	}
	if err := lines.Err(); err != nil || len(h.records) < 2000 {
		t.Fatalf("%d records of the history: %v", len(h.records), err)
	}
	return h
}
