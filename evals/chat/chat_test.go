package chat

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestQuestion(t *testing.T) {
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Model    string
			Messages []struct{ Role, Content string }
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.URL.Path != "/v1/chat/completions" || r.Header.Get("Authorization") != "Bearer secret" || r.Header.Get("X-Team") != "a" {
			t.Errorf("asked %s with %v, %v", r.URL.Path, r.Header, err)
		}
		switch last := q.Messages[len(q.Messages)-1]; {
		case strings.Contains(last.Content, "refused"):
			asked.Add(1)
			http.Error(w, `{"error":{"message":"no such model","type":"x"}}`, http.StatusNotFound)
		case strings.Contains(last.Content, "empty"):
			fmt.Fprint(w, `{"choices":[]}`)
		case asked.Add(1) == 1:
			http.Error(w, `{"error":{"message":"busy","type":"x"}}`, http.StatusTooManyRequests)
		case q.Model != "small" || last.Role != "user" || last.Content != "---\nSwifts sleep in the air.\n---":
			t.Errorf("asked %+v", q)
		default:
			fmt.Fprint(w, `{"choices":[{"message":{"role":"assistant","content":"Where do swifts sleep?"}}]}`)
		}
	}))
	defer s.Close()
	w, err := New(Config{BaseURL: s.URL + "/v1/", Key: "secret", Model: "small", Headers: map[string]string{"X-Team": "a"}, Pause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := w.Question(t.Context(), "Swifts sleep in the air."); err != nil || got != "Where do swifts sleep?" || asked.Load() != 2 {
		t.Errorf("%q, %v after %d requests", got, err, asked.Load())
	}
	asked.Store(0)
	if _, err := w.Question(t.Context(), "refused"); err == nil || !strings.Contains(err.Error(), "no such model") || asked.Load() != 1 {
		t.Errorf("%v after %d requests", err, asked.Load())
	}
	if _, err := w.Question(t.Context(), "empty"); err == nil || !strings.Contains(err.Error(), "no choices") {
		t.Errorf("got %v", err)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("no model is needed")
	}
}
