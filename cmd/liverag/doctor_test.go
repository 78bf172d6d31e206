package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/mockprovider"
	"github.com/liverag/liverag/internal/simd"
	"github.com/liverag/liverag/stream/kafka"
)

// examine runs the doctor and returns its checks by name.
func examine(t *testing.T, wantCode int, environ []string, args ...string) map[string]check {
	t.Helper()
	got := invoke(t, environ, "", append([]string{"doctor", "--json"}, args...)...)
	if got.code != wantCode {
		t.Errorf("code %d, want %d: %s%s", got.code, wantCode, got.out, got.err)
	}
	var answer struct {
		OK     bool    `json:"ok"`
		Checks []check `json:"checks"`
	}
	if err := json.Unmarshal([]byte(got.out), &answer); err != nil {
		t.Fatalf("%v: %s", err, got.out)
	}
	if answer.OK != (wantCode == exitDone) {
		t.Errorf("ok is %v with the code %d", answer.OK, wantCode)
	}
	byName := map[string]check{}
	for _, one := range answer.Checks {
		byName[one.Name] = one
		if one.State != stateOK && one.Do == "" {
			t.Errorf("%s does not say what to do: %+v", one.Name, one)
		}
	}
	return byName
}

func expectCheck(t *testing.T, got check, state, detail string) {
	t.Helper()
	if got.State != state || !strings.Contains(got.Detail, detail) {
		t.Errorf("%+v, want %s with %q", got, state, detail)
	}
}

func TestDoctorWithoutServer(t *testing.T) {
	t.Chdir(t.TempDir())
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	// What has the port speaks no HTTP, and hangs up.
	go func() {
		for {
			conn, err := taken.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	defer taken.Close()

	checks := examine(t, exitDone, nil, "--listen", free.Addr().String())
	for _, name := range []string{"program", "cpu", "config", "data", "disk", "clock"} {
		if checks[name].State == "" || checks[name].State == stateFail {
			t.Errorf("%s: %+v", name, checks[name])
		}
	}
	expectCheck(t, checks["server"], stateOK, "is free")
	expectCheck(t, checks["data"], stateOK, "will be made")
	if _, err := os.Stat("liverag-data"); !os.IsNotExist(err) {
		t.Error("the doctor made the data directory")
	}
	expectCheck(t, examine(t, exitFailed, nil, "--listen", taken.Addr().String())["server"], stateFail, "can't be listened on")
	expectCheck(t, examine(t, exitFailed, nil, "--server", "http://127.0.0.1:1")["server"], stateFail, "no liverag answers")

	put(t, "file", "x")
	expectCheck(t, examine(t, exitFailed, nil, "--data", "file", "--listen", free.Addr().String())["data"], stateFail, "is no directory")
	expectCheck(t, examine(t, exitFailed, []string{"LIVERAG_TOKENS=0"}, "--listen", free.Addr().String())["config"], stateFail, "tokens: must be from 16 to 8192, not 0")
	expectCheck(t, examine(t, exitFailed, nil, "--config", "none.yaml")["config"], stateFail, "config: can't read")

	got := invoke(t, nil, "", "doctor", "--data", "file", "--listen", free.Addr().String())
	if got.code != exitFailed || !strings.Contains(got.out, "FAIL  data       ") || !strings.Contains(got.out, "ok    clock      ") || !strings.Contains(got.err, "1 check failed") {
		t.Errorf("%+v", got)
	}
}

func TestDoctorWithServer(t *testing.T) {
	t.Chdir(t.TempDir())
	answers := map[string]string{
		"/healthz":     `{}`,
		"/readyz":      `{}`,
		"/freshness":   `{"slo":{"target":"2s","percentile":0.99,"met":true},"time_to_searchable":{"p99":"38ms","count":12},"partitions":[{"partition":0,"lag":0}]}`,
		"/generations": `[` + strings.Replace(trial("ready"), `"alias":[]`, `"alias":["live"]`, 1) + `]`,
	}
	s := newServer(t, func(r request) (int, string) {
		if answers[r.path] == "" {
			return 503, `{"code":"not_ready","detail":"reading the log"}`
		}
		return 200, answers[r.path]
	})
	checks := examine(t, exitDone, nil, "--server", s.URL)
	expectCheck(t, checks["server"], stateOK, s.URL)
	expectCheck(t, checks["ready"], stateOK, "")
	expectCheck(t, checks["freshness"], stateOK, "caught up with the log; 99 % of 12 changes searchable within 38ms")
	expectCheck(t, checks["index"], stateOK, "trial is ready, recursive 120 overlap 10, hash/384, 4 documents, live")
	expectCheck(t, checks["skew"], stateOK, "agrees")

	answers["/freshness"] = `{"slo":{"target":"2s","percentile":0.99,"met":false},"time_to_searchable":{"p99":"9s","count":12},"partitions":[{"partition":0,"lag":3},{"partition":1,"lag":4}]}`
	answers["/generations"] = `[` + strings.TrimSuffix(strings.Replace(trial("ready"), `"alias":[]`, `"alias":["live"]`, 1), "}") + `,"trouble":{"detail":"disk full"}}]`
	checks = examine(t, exitFailed, nil, "--server", s.URL)
	expectCheck(t, checks["freshness"], stateWarn, "7 changes behind the log")
	expectCheck(t, checks["index"], stateFail, "trial is ready")
	if checks["index"].Do != "disk full" {
		t.Errorf("%+v", checks["index"])
	}

	delete(answers, "/readyz")
	expectCheck(t, examine(t, exitDone, nil, "--server", s.URL)["ready"], stateWarn, "not_ready: reading the log")
}

func TestDoctorWithKafka(t *testing.T) {
	t.Chdir(t.TempDir())
	quiet := slog.New(slog.DiscardHandler)
	embedded, err := kafka.OpenEmbedded(kafka.EmbeddedConfig{Dir: filepath.Join("data", "log"), Listen: "127.0.0.1:0", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer embedded.Close()
	args := []string{"--listen", "127.0.0.1:0", "--data", "data", "--kafka", embedded.Brokers()[0]}
	checks := examine(t, exitDone, nil, args...)
	expectCheck(t, checks["kafka"], stateOK, "topic documents will be made by `liverag up`")
	expectCheck(t, checks["data"], stateOK, "is in use by process ")

	log, err := kafka.Open(t.Context(), kafka.Config{Brokers: embedded.Brokers(), Partitions: 3, ReplicationFactor: 1, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	expectCheck(t, examine(t, exitDone, nil, args...)["kafka"], stateOK, "topic documents has 3 partitions")
	expectCheck(t, examine(t, exitFailed, nil, "--listen", "127.0.0.1:0", "--kafka", "127.0.0.1:1")["kafka"], stateFail, "no answer from 127.0.0.1:1")
	sasl := []string{"LIVERAG_KAFKA_SASL_MECHANISM=PLAIN", "LIVERAG_KAFKA_SASL_USER=u", "LIVERAG_KAFKA_SASL_PASSWORD=hunter2"}
	refused := examine(t, exitFailed, sasl, args...)["kafka"]
	if refused.State != stateFail || !strings.Contains(refused.Detail+refused.Do, "kafka.sasl") || strings.Contains(refused.Detail, "hunter2") {
		t.Errorf("%+v", refused)
	}
}

// TestDoctorWithAModel looks at each kind of model, and at endpoints that say no.
func TestDoctorWithAModel(t *testing.T) {
	t.Chdir(t.TempDir())
	at := func(wantCode int, environ []string, args ...string) check {
		t.Helper()
		return examine(t, wantCode, environ, append([]string{"--listen", "127.0.0.1:0"}, args...)...)["model"]
	}
	expectCheck(t, at(exitDone, nil, "--embedder", "hash/64"), stateOK, "hash/64 counts words")
	expectCheck(t, at(exitDone, nil, "--embedder", "local/static"), stateOK, "kernel "+simd.Kernel())
	mini := at(exitDone, nil, "--embedder", "local/minilm")
	if want := map[bool]string{true: stateWarn, false: stateOK}[simd.Kernel() == "go"]; mini.State != want || !strings.Contains(mini.Detail, "384 dimensions, inputs of at most 256 tokens") {
		t.Errorf("%+v, want %s", mini, want)
	}
	expectCheck(t, at(exitFailed, nil, "--embedder", "local/none"), stateFail, "local/none")
	expectCheck(t, at(exitFailed, nil, "--embedder", "nobody/knows"), stateFail, "unknown provider")

	provider, err := mockprovider.New(mockprovider.Config{
		Vectors: func(ctx context.Context, dim int, inputs []string) ([][]float32, error) {
			return embedder.NewHash(dim).Embed(ctx, embedder.Index, inputs)
		},
		Dim: 96, Key: "hunter2", Models: []string{"good"},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(provider)
	defer s.Close()
	key := []string{"OPENAI_API_KEY=hunter2"}
	base := []string{"--embedder", "openai/good", "--openai-base-url", s.URL + "/v1"}
	expectCheck(t, at(exitDone, key, append(base, "--openai.max_input", "512", "--openai.max_batch", "16")...), stateOK, "96 dimensions, inputs of at most 512 tokens, at most 16 inputs a request")
	for name, c := range map[string]struct {
		environ []string
		args    []string
		detail  string
		do      string
	}{
		"wrong key":     {[]string{"OPENAI_API_KEY=sesame"}, base, "401", "OPENAI_API_KEY"},
		"unknown model": {key, []string{"--embedder", "openai/bad", "--openai-base-url", s.URL + "/v1"}, "404", "openai.base_url"},
		"no such path":  {key, []string{"--embedder", "openai/good", "--openai-base-url", s.URL + "/v9"}, "404", "openai.base_url"},
		"nobody there":  {key, []string{"--embedder", "openai/good", "--openai-base-url", "http://127.0.0.1:1/v1"}, "127.0.0.1:1", "openai.base_url"},
	} {
		got := at(exitFailed, c.environ, c.args...)
		if got.State != stateFail || !strings.Contains(got.Detail, c.detail) || !strings.Contains(got.Do, c.do) || strings.Contains(got.Detail, "sesame") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestDoctorWithAStandby looks at both endpoints of a model, and says what is wrong with which.
func TestDoctorWithAStandby(t *testing.T) {
	t.Chdir(t.TempDir())
	first, _ := endpoint(t, "127.0.0.1:0", 96, nil)
	same, _ := endpoint(t, "127.0.0.1:0", 96, func(c *mockprovider.Config) { c.Key = "sk-second" })
	wider, _ := endpoint(t, "127.0.0.1:0", 128, func(c *mockprovider.Config) { c.Key = "" })
	const nobody = "127.0.0.1:1"
	keys := []string{"LIVERAG_OPENAI_API_KEY=sk-test", "LIVERAG_OPENAI_FAILOVER_API_KEY=sk-second"}
	for _, c := range []struct {
		name, first, second string
		environ             []string
		code                int
		model, failover     string // states
		detail, do          string // of failover
	}{
		{"both well", first, same, keys, exitDone, stateOK, stateOK, "its vectors are the same", ""},
		{"another model", first, wider, keys, exitFailed, stateOK, stateFail, "has 128 dimensions", "leave it out"},
		{"the second has another key", first, same, keys[:1], exitFailed, stateOK, stateFail, "set LIVERAG_OPENAI_FAILOVER_API_KEY", "openai.failover.api_key"},
		{"the second is away", first, nobody, keys, exitDone, stateOK, stateWarn, nobody, "openai.failover.base_url"},
		{"the first is away", nobody, same, keys, exitFailed, stateFail, stateWarn, "96 dimensions", "until then it can't stand in"},
	} {
		found := examine(t, c.code, c.environ, "--listen", "127.0.0.1:0", "--embedder", "openai/good", "--openai-base-url", "http://"+c.first+"/v1", "--openai.failover.base_url", "http://"+c.second+"/v1")
		model, failover := found["model"], found["failover"]
		if model.State != c.model || failover.State != c.failover || !strings.Contains(failover.Detail, c.detail) || !strings.Contains(failover.Do, c.do) || strings.Contains(fmt.Sprint(found), "sk-") {
			t.Errorf("%s: %+v, %+v", c.name, model, failover)
		}
		if !strings.Contains(failover.Detail, c.second) {
			t.Errorf("%s: does not name %s: %+v", c.name, c.second, failover)
		}
	}
}

// TestDoctorWithAMilvusThatSaysNo meets a closed port, a server that is none, and one that refuses the login.
func TestDoctorWithAMilvusThatSaysNo(t *testing.T) {
	t.Chdir(t.TempDir())
	refusing := func(refusal error) string {
		t.Helper()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return refusal }))
		go func() { _ = s.Serve(listener) }()
		t.Cleanup(s.Stop)
		return listener.Addr().String()
	}
	page := httptest.NewServer(http.NotFoundHandler())
	defer page.Close()
	brokers := startBroker(t).address
	login := []string{"LIVERAG_MILVUS_USER=root", "LIVERAG_MILVUS_PASSWORD=hunter2"}
	for name, c := range map[string]struct {
		environ         []string
		address, detail string
	}{
		"closed port": {nil, "127.0.0.1:1", "milvus.address"},
		"a web page":  {nil, page.Listener.Addr().String(), "milvus.address"},
		"wrong login": {login, refusing(status.Error(codes.Unauthenticated, "auth check failure")), "milvus.password"},
		"no rights":   {login, refusing(status.Error(codes.PermissionDenied, "privilege not permitted")), "milvus.password"},
		"confused":    {nil, refusing(status.Error(codes.Internal, "panic")), "panic"},
	} {
		checks := examine(t, exitFailed, c.environ, "--listen", "127.0.0.1:0", "--embedder", "hash/64", "--kafka", brokers, "--milvus", c.address)
		got := checks["milvus"]
		if got.State != stateFail || !strings.Contains(got.Detail, c.address) || !strings.Contains(got.Detail, c.detail) || !strings.Contains(got.Do, "liverag config milvus") || strings.Contains(got.Detail, "hunter2") {
			t.Errorf("%s: %+v", name, got)
		}
		expectCheck(t, checks["kafka"], stateOK, brokers)
	}
}

// TestDoctorWithAMilvus looks at real servers, before and after there is something of the corpus.
func TestDoctorWithAMilvus(t *testing.T) {
	for kind, variable := range map[string]string{"full": "MILVUS_FULL", "lite": "MILVUS_LITE"} {
		t.Run(kind, func(t *testing.T) {
			c := needCluster(t, variable, kind)
			t.Chdir(t.TempDir())
			look := func() map[string]check {
				return examine(t, exitDone, nil, "--listen", "127.0.0.1:0", "--embedder", "hash/64", "--kafka", c.brokers, "--milvus", c.milvus, "--corpus", c.corpus)
			}
			expectCheck(t, look()["milvus"], stateOK, "no collection of corpus "+c.corpus)
			p := c.start("serve")
			name := p.live().Name
			p.stop()
			checks := look()
			expectCheck(t, checks["milvus"], stateOK, "liverag_"+c.corpus+"_"+name)
			expectCheck(t, checks["kafka"], stateOK, c.corpus+" has ")
			if kind == "full" {
				expectCheck(t, checks["limits"], stateWarn, "only dense search")
			} else if _, found := checks["limits"]; found && checks["limits"].State != stateOK {
				t.Errorf("%+v", checks["limits"])
			}
		})
	}
}

func TestClock(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	expectCheck(t, checkClock(now, ""), stateOK, "2026-05-06")
	expectCheck(t, checkClock(now, "2026-05-06T12:00:00Z"), stateOK, "2026-05-06")
	expectCheck(t, checkClock(now, "2026-06-01T00:00:00Z"), stateFail, "2026-05-06")
}
