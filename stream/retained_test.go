package stream_test

import (
	"runtime"
	"testing"
	"weak"

	"github.com/liverag/liverag/stream"
)

// TestADocumentDoesNotKeepItsRecord: a record is a part of a fetch of megabytes, which would stay in memory as long as the smallest document in it.
func TestADocumentDoesNotKeepItsRecord(t *testing.T) {
	for name, decode := range map[string]func(data []byte) any{
		"document": func(data []byte) any {
			d, problem := stream.DecodeDocument(data, 0)
			if problem != nil {
				t.Fatal(problem)
			}
			return d
		},
		"line": func(data []byte) any {
			c, problem := stream.DecodeLine(data, 0)
			if problem != nil {
				t.Fatal(problem)
			}
			return c.Document
		},
	} {
		data := append(make([]byte, 0, 1<<20), `{"text":"short","title":"a","metadata":{"n":1.5,"s":"b"},"acl":["c"]}`...)
		if name == "line" {
			data = append(data[:len(data)-1], `,"id":"d"}`...)
		}
		record := weak.Make(&data[0])
		document := decode(data)
		data = nil
		for range 3 {
			runtime.GC()
		}
		if record.Value() != nil {
			t.Errorf("a %s keeps what it was decoded from", name)
		}
		runtime.KeepAlive(document)
	}
}
