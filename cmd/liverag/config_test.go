package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/liverag/liverag/internal/config"
)

func TestLoadConfig(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if cfg, settings, err := loadConfig(nil, nil); err != nil || cfg.File != "" || !settings.Origin("tokens").IsDefault() {
		t.Fatalf("without a file: %+v, %v", cfg, err)
	}
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("liverag.yaml", "tokens: 100\nkafka:\n  brokers: [a:1]\n  sasl: {mechanism: plain, user: u, password: p}\n")
	other := write("other.yaml", "tokens: 150\n")

	cfg, settings, err := loadConfig([]string{"LIVERAG_KAFKA_SASL_USER=v", "LIVERAG_SHARED=/x"}, []config.FlagValue{{Name: "kafka", Value: "b:2,c:3"}})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintln(cfg.File, cfg.Tokens, cfg.Kafka.Brokers, cfg.Kafka.SASL)
	if want := "liverag.yaml 100 [b:2 c:3] {PLAIN v p }\n"; got != want {
		t.Errorf("got %s", got)
	}
	for name, want := range map[string]string{"tokens": "liverag.yaml:1", "kafka.brokers": "flag --kafka", "kafka.sasl.user": "env LIVERAG_KAFKA_SASL_USER", "overlap": "default"} {
		if got := settings.Origin(name).String(); got != want {
			t.Errorf("%s is from %s, want %s", name, got, want)
		}
	}
	for _, named := range []struct {
		env   []string
		flags []config.FlagValue
	}{{env: []string{"LIVERAG_CONFIG=" + other}}, {env: []string{"LIVERAG_CONFIG=nowhere"}, flags: []config.FlagValue{{Name: "config", Value: other}}}} {
		if cfg, _, err := loadConfig(named.env, named.flags); err != nil || cfg.Tokens != 150 || cfg.File != other {
			t.Errorf("named file: %v, %+v", err, cfg)
		}
	}
	if _, _, err := loadConfig([]string{"LIVERAG_CONFIG=nowhere"}, nil); err == nil || !strings.HasPrefix(err.Error(), "config: can't read") {
		t.Errorf("a named file that is missing: %v", err)
	}
}

func TestValidate(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, tt := range []struct {
		env  string // NAME=value, without the prefix, several separated by ;
		want string // "" is no error
	}{
		{"", ""},
		{"LISTEN=localhost:0", ""},
		{"LISTEN=[::1]:8080", ""},
		{"LISTEN=0.0.0.0:8080;INSECURE_LISTEN=true", ""},
		{"LISTEN=0.0.0.0:8080", "listen: 0.0.0.0:8080 can be reached from other machines"},
		{"LISTEN=:8080", "listen: :8080 can be reached"},
		{"LISTEN=example.org:8080", "listen: example.org:8080 can be reached"},
		{"LISTEN=8080", `listen: "8080" is no address`},
		{"LISTEN=127.0.0.1:99999", `listen: "127.0.0.1:99999" is no address`},
		{"DATA=", "data: must name a directory"},
		{"SERVER=127.0.0.1:8080", "server: "},
		{"SERVER=https://rag.example.org/base", ""},
		{"CORPUS=Docs", `corpus: "Docs" is no name`},
		{"TOKENS=20;OVERLAP=20", "overlap: must be less than tokens (20), not 20"},
		{"EMBEDDER=minilm", `embedder: "minilm" is no model`},
		{"CHUNKER=semantic", "chunker: must be one of markdown, recursive, token, whole"},
		{"TOKENIZER=gpt", "tokenizer: must be one of cl100k_base, o200k_base, minilm"},
		{"LONG=drop", "long: must be one of split, truncate, reject"},
		{"DOCUMENTS_MAX_BYTES=1GiB", "documents.max_bytes: must be from 1KiB to 256MiB, not 1GiB"},
		{"FRESHNESS_SLO_PERCENTILE=99", "freshness.slo.percentile: must be from 0.5 to 1, not 99"},
		{"SPENDING_DAILY_USD=5", ""}, // what runs here is free
		{"SPENDING_DAILY_USD=5;EMBEDDER=openai/m", "spending.daily_usd: can't be kept without the price of openai/m"},
		{"SPENDING_DAILY_USD=5;EMBEDDER=openai/m;PRICES=openai/other=1", "spending.daily_usd: can't be kept without the price of openai/m"},
		{"SPENDING_DAILY_USD=5;EMBEDDER=openai/m;PRICES=openai/m=0", ""},
		{"SPENDING_DAILY_TOKENS=5;EMBEDDER=openai/m", ""},
		{"SPENDING_DAILY_TOKENS=-1", "spending.daily_tokens: must be"},
		{"SPENDING_DAILY_USD=-0.01", "spending.daily_usd: must be"},
		{"OPENAI_FAILOVER_BASE_URL=https://b/v1;OPENAI_FAILOVER_API_KEY=k;OPENAI_FAILOVER_RPM=3", ""},
		{"OPENAI_FAILOVER_BASE_URL=b/v1", `openai.failover.base_url: "b/v1" is no base URL`},
		{"OPENAI_FAILOVER_API_KEY=k", "openai.failover.base_url: must be set"},
		{"OPENAI_FAILOVER_TPM=5", "openai.failover.base_url: must be set"},
		{"OPENAI_BASE_URL=https://a/v1;OPENAI_API_KEY=k;OPENAI_FAILOVER_BASE_URL=https://a/v1;OPENAI_FAILOVER_API_KEY=k", "openai.failover.base_url: is the first endpoint once more"},
		{"OPENAI_BASE_URL=https://a/v1;OPENAI_API_KEY=k;OPENAI_FAILOVER_BASE_URL=https://a/v1;OPENAI_FAILOVER_API_KEY=l", ""},
		{"OPENAI_FAILOVER_BASE_URL=https://b/v1;OPENAI_FAILOVER_HEADERS=authorization=k", "openai.failover.headers: must not hold authorization"},
		{"KAFKA_BROKERS=a", `kafka.brokers: "a" is no address`},
		{"KAFKA_TLS_ENABLED=true", "kafka.tls.enabled: has no effect without kafka.brokers"},
		{"KAFKA_BROKERS=a:1;KAFKA_TLS_CA_FILE=x", "kafka.tls.enabled: must be true"},
		{"KAFKA_BROKERS=a:1;KAFKA_TLS_ENABLED=true;KAFKA_TLS_CERT_FILE=x", "kafka.tls.cert_file: and kafka.tls.key_file belong together"},
		{"KAFKA_BROKERS=a:1;KAFKA_SASL_USER=u", "kafka.sasl.mechanism: must be set"},
		{"KAFKA_BROKERS=a:1;KAFKA_SASL_MECHANISM=scram-sha-512;KAFKA_SASL_USER=u", "kafka.sasl.password: is required by SCRAM-SHA-512"},
		{"KAFKA_BROKERS=a:1;KAFKA_SASL_MECHANISM=OAUTHBEARER", "kafka.sasl.token: is required"},
		{"KAFKA_SASL_MECHANISM=PLAIN;KAFKA_SASL_USER=u;KAFKA_SASL_PASSWORD=p", "kafka.sasl.mechanism: has no effect without kafka.brokers"},
		{"MAPPING_TITLE=$.t", "mapping.title: has no effect without mapping.text"},
		{"MAPPING_TEXT=$.t +", "mapping.text: "},
		{`MAPPING_TEXT=$.t + "\n" + $.b;MAPPING_DELETED=$.op == "d";MAPPING_METADATA=team=$.team`, ""},
	} {
		t.Run(tt.env, func(t *testing.T) {
			var environ []string
			for pair := range strings.SplitSeq(tt.env, ";") {
				if pair != "" {
					environ = append(environ, envPrefix+pair)
				}
			}
			_, _, err := loadConfig(environ, nil)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)):
				t.Errorf("got %v, want %s…", err, tt.want)
			}
		})
	}
}

func TestMappingIsParsed(t *testing.T) {
	m := MappingConfig{ID: "$.pk", Text: "$.body", ContentType: `"text/html"`, Title: "$.t", URL: "$.u", Deleted: `$.op == "d"`,
		UpdatedAt: "$.ts", Tenant: "$.tenant", ACL: "$.acl", Metadata: map[string]string{"team": "$.team"}}
	got, err := m.mapping()
	if err != nil {
		t.Fatal(err)
	}
	for want, expr := range map[string]fmt.Stringer{m.ID: got.ID, m.Text: got.Text, m.ContentType: got.ContentType, m.Title: got.Title, m.URL: got.URL,
		m.Deleted: got.Deleted, m.UpdatedAt: got.UpdatedAt, m.Tenant: got.Tenant, m.ACL: got.ACL, "$.team": got.Metadata["team"]} {
		if expr.String() != want {
			t.Errorf("%s became %s", want, expr)
		}
	}
	if got, err := (&MappingConfig{}).mapping(); got != nil || err != nil {
		t.Errorf("no mapping became %v, %v", got, err)
	}
}

func TestConfigVerb(t *testing.T) {
	t.Chdir(t.TempDir())
	env := []string{"LIVERAG_KAFKA_BROKERS=a:1", "LIVERAG_KAFKA_SASL_MECHANISM=PLAIN", "LIVERAG_KAFKA_SASL_USER=u", "LIVERAG_KAFKA_SASL_PASSWORD=hunter2"}
	for _, args := range [][]string{{"config"}, {"config", "--json"}} {
		got := invoke(t, env, "", args...)
		if got.code != exitDone || strings.Contains(got.out, "hunter2") || !strings.Contains(got.out, config.Masked) {
			t.Errorf("%v: code %d, %s", args, got.code, got.out)
		}
	}
	if got := invoke(t, env, "", "config", "kafka.sasl", "--changed"); got.out != `SETTING               VALUE     FROM
kafka.sasl.mechanism  PLAIN     env LIVERAG_KAFKA_SASL_MECHANISM
kafka.sasl.user       u         env LIVERAG_KAFKA_SASL_USER
kafka.sasl.password   ********  env LIVERAG_KAFKA_SASL_PASSWORD
` {
		t.Errorf("got\n%s%s", got.out, got.err)
	}
	var answer struct {
		Settings []shownSetting `json:"settings"`
	}
	got := invoke(t, nil, "", "config", "tokens", "http.max_body", "--tokens", "17", "--json")
	if err := json.Unmarshal([]byte(got.out), &answer); err != nil || len(answer.Settings) != 2 {
		t.Fatalf("%v: %s%s", err, got.out, got.err)
	}
	if s := answer.Settings[0]; s.Value != 17.0 || s.Origin != "flag --tokens" || s.Default != "200" || s.Env != "LIVERAG_TOKENS" || s.Flag != "--tokens" {
		t.Errorf("%+v", s)
	}
	if s := answer.Settings[1]; s.Value != "64MiB" {
		t.Errorf("%+v", s)
	}
	if got := invoke(t, nil, "", "config", "toknes"); got.code != exitUsage || !strings.Contains(got.err, "did you mean tokens?") {
		t.Errorf("%+v", got)
	}
}

// TestConfigManual holds docs/CONFIG.md to the struct.
func TestConfigManual(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "CONFIG.md")
	want := configManual()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/CONFIG.md is out of date: go test ./cmd/liverag -update writes it")
	}
}

func configManual() string {
	var b strings.Builder
	b.WriteString("# Settings\n\n<!-- Made from the struct Config in cmd/liverag/config.go: go test ./cmd/liverag -update writes it. -->\n\n" +
		"Every setting has one name and three spellings. Later ones win: the default, the file, the environment, flags.\n\n" +
		"| | `kafka.sasl.user` is spelled |\n|---|---|\n" +
		"| file | `kafka: {sasl: {user: indexer}}`, or `kafka.sasl.user: indexer` |\n" +
		"| environment | `LIVERAG_KAFKA_SASL_USER=indexer` |\n" +
		"| flag | `--kafka.sasl.user indexer` |\n\n" +
		"The file is YAML: `liverag.yaml` in the working directory, or what `--config` or `LIVERAG_CONFIG` names. A key that is no setting is an error, and so is a variable\n" +
		"that begins with `LIVERAG_`, except `" + strings.Join(envIgnored, "`, `") + "`: the first names the kernel to be used, the second the data that some tests read. Secrets come from the file or the environment, never from a flag,\n" +
		"because everybody on a machine can see the arguments of a process. Relative paths start from the working directory.\n\n" +
		"`liverag config` shows every value in force with where it came from, and checks a file: `liverag config --config staging.yaml`.\n\n" +
		"Durations have units (`250ms`, `2s`, `1m30s`), sizes too (`512KiB`, `8MiB`, `1GiB`; kB, MB and GB are of 1000). A list is `[a, b]` in the file and `a,b` elsewhere; a mapping\n" +
		"is `{team: $.team}` in the file, and `team=$.team,year=$.year` or the same `{…}` elsewhere. As flags both may be repeated.\n")
	var sections []string
	rows := map[string]string{}
	for _, s := range config.Describe(defaultConfig(), envPrefix) {
		section := ""
		if i := strings.LastIndexByte(s.Name, '.'); i >= 0 {
			section = s.Name[:i]
		}
		if rows[section] == "" {
			sections = append(sections, section)
		}
		rows[section] += manualRow(&s)
	}
	for _, section := range sections {
		heading := section
		if section == "" {
			heading = "General"
		}
		fmt.Fprintf(&b, "\n## %s\n\n| setting | type | default | meaning | flag | environment |\n|---|---|---|---|---|---|\n%s", heading, rows[section])
	}
	return b.String()
}

func manualRow(s *config.Setting) string {
	fallback, flagName, doc := "none", "never: a secret", s.Doc
	if s.Default != "" {
		fallback = "`" + s.Default + "`"
	}
	if s.Flag != "" {
		flagName = "`--" + s.Flag + "`"
	}
	if len(s.OneOf) > 0 {
		doc += " One of `" + strings.Join(s.OneOf, "`, `") + "`."
	}
	if bounds := s.Bounds(); bounds != "" {
		doc += " " + strings.ToUpper(bounds[:1]) + bounds[1:] + "."
	}
	if !s.InFile {
		doc += " Not in the file."
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s | `%s` |\n", s.Name, s.Type(), fallback, strings.ReplaceAll(doc, "|", `\|`), flagName, s.Env)
}
