package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/mockprovider"
)

// startMock runs the verb on a free port. Lines are what it prints.
func startMock(t *testing.T, args ...string) (lines *bufio.Scanner, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	done := make(chan int, 1)
	go func() {
		code := run(ctx, append([]string{"mock-provider", "--listen", "127.0.0.1:0"}, args...), nil, strings.NewReader(""), in, in)
		in.Close()
		done <- code
	}()
	return bufio.NewScanner(out), func() int {
		cancel()
		return <-done
	}
}

func TestMockProvider(t *testing.T) {
	lines, stop := startMock(t, "--json", "--dim", "64", "--every", "0", "--script", "ok,503,hang")
	var started struct{ URL string }
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &started) != nil || !strings.HasSuffix(started.URL, "/v1") {
		t.Fatalf("it began with %q", lines.Text())
	}
	post := func(ctx context.Context) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, started.URL+"/embeddings", strings.NewReader(`{"model":"m","input":["refunds take five days"]}`))
		if err != nil {
			t.Fatal(err)
		}
		return http.DefaultClient.Do(req)
	}
	res, err := post(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Data []struct{ Embedding []float32 }
	}
	err = json.NewDecoder(res.Body).Decode(&answer)
	res.Body.Close()
	want, _ := embedder.NewHash(64).Embed(t.Context(), embedder.Index, []string{"refunds take five days"})
	if err != nil || len(answer.Data) != 1 || len(answer.Data[0].Embedding) != 64 || answer.Data[0].Embedding[3] != want[0][3] {
		t.Errorf("got %v, %v", answer, err)
	}
	if res, err = post(t.Context()); err != nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %v, %v", res, err)
	} else {
		res.Body.Close()
	}
	// The third hangs, and must not keep the program from ending.
	failed := make(chan error, 1)
	go func() { _, err := post(t.Context()); failed <- err }()
	for hanging := 0; hanging == 0; {
		res, err := http.Get(strings.TrimSuffix(started.URL, "/v1") + "/stats")
		if err != nil {
			t.Fatal(err)
		}
		var s mockprovider.Stats
		if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		hanging = int(s.Faults["hang"])
	}
	code := make(chan int, 1)
	go func() { code <- stop() }()
	var last mockprovider.Stats
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &last) != nil || lines.Scan() {
		t.Errorf("it ended with %q", lines.Text())
	}
	if got := <-code; got != exitDone || <-failed == nil {
		t.Errorf("it exited with %d", got)
	}
	if last.Requests != 3 || last.Answered != 1 || last.Inputs != 1 || last.Faults["503"] != 1 {
		t.Errorf("totals: %+v", last)
	}
}

// The flags for the provider's words, limits and counts reach it.
func TestMockProviderSpeaks(t *testing.T) {
	lines, stop := startMock(t, "--json", "--dim", "8", "--every", "0", "--headers", "ietf", "--rpm", "600", "--tpm", "1000", "--window", "1m", "--usage-factor", "3", "--tokenizer", "cl100k_base",
		"--server", "vllm", "--max-input-tokens", "77", "--at", "0s:rpm=60", "--at", "1h:down", "--poison", "bad", "--poison-status", "500", "--refuse-large", "--retry-after", "none")
	var started struct{ URL string }
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &started) != nil {
		t.Fatalf("it began with %q", lines.Text())
	}
	ask := func(input string) (*http.Response, string) {
		res, err := http.Post(started.URL+"/embeddings", "application/json", strings.NewReader(fmt.Sprintf(`{"model":"m","input":[%q]}`, input)))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(text)
	}
	res, text := ask("refunds take five days") // 5 tokens
	if policy := res.Header.Get("RateLimit-Policy"); policy != `"requests";q=60;w=60, "tokens";q=1000;w=60;qu="tokens"` || !strings.Contains(text, `"prompt_tokens":15`) {
		t.Errorf("%s, %s", policy, text)
	}
	if res, text := ask("a bad one"); res.StatusCode != 500 || !strings.Contains(text, `"type":"InternalServerError"`) {
		t.Errorf("%d %s", res.StatusCode, text)
	}
	if res, text := ask(strings.Repeat("long ", 400)); res.StatusCode != 400 || !strings.Contains(text, "context length is only 77 tokens") {
		t.Errorf("%d %s", res.StatusCode, text)
	}
	go func() {
		for lines.Scan() {
			continue // its totals
		}
	}()
	if code := stop(); code != exitDone {
		t.Errorf("it exited with %d", code)
	}
}

func TestMockProviderUsage(t *testing.T) {
	for want, args := range map[string][]string{
		"there is no fault \"426\"":       {"--fault", "426=0.1"},
		"write it like 503*20":            {"--script", "503*x"},
		"takes no arguments":              {"here"},
		"a dimension is from 1":           {"--dim", "-4"},
		"no way to say when to come back": {"--retry-after", "soon"},
		"can't be negative":               {"--rpm", "-1"},
		"more than all":                   {"--fault", "500=0.7,503=0.7"},
		"no way to tell limits":           {"--headers", "shouting"},
		"write it like 30s:down":          {"--at", "soon:down"},
		"nan is no outage":                {"--at", "30s:nan"},
		"a usage factor is above 0":       {"--usage-factor", "-1"},
		"--tokenizer is one of bytes4":    {"--tokenizer", "words"},
		"no server that it can pass for":  {"--server", "word2vec"},
		"is from 400 to 599":              {"--poison-status", "200"},
	} {
		got := invoke(t, nil, "", append([]string{"mock-provider"}, args...)...)
		if got.code != exitUsage || !strings.Contains(got.err, want) {
			t.Errorf("%v: %d, %s", args, got.code, got.err)
		}
	}
}

func TestPrintMock(t *testing.T) {
	var out bytes.Buffer
	c := &call{Out: newTerminal(&out, nil)}
	now := mockprovider.Stats{Requests: 1300, Answered: 1200, Inputs: 2400, Tokens: 99000, RateLimited: 40, LimitedBy: mockprovider.Limited{Requests: 30, Tokens: 8, Crowd: 2}, BusiestSecond: 7, InputsPerRequest: 2, FirstRequest: 1, LastAnswer: 13.5, Floor: 12, Refused: 10, Gone: 2, MostInFlight: 5, Faults: map[string]int64{"503": 3, "429": 2}}
	if err := printMock(c, now, mockprovider.Stats{}, 0); err != nil {
		t.Fatal(err)
	}
	const want = "in all  1,300 requests, 1,200 answered with 2,400 vectors, 99,000 tokens; 40 over a limit (30 of requests, 8 of tokens, 2 at once); 10 refused; faults: 429 2, 503 3; 2 not waited for; at most 5 at once, and 7 requests in one second; 2.0 inputs a request; the last answer 12.5 s after the first request, where the floor is 12.0 s\n"
	if out.String() != want {
		t.Errorf("got %q", out.String())
	}
}
