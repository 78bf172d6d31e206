package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

type sample struct {
	Data    string            `name:"data" doc:"A directory."`
	File    string            `name:"config" file:"no"`
	Count   int               `name:"count" min:"1" max:"10"`
	On      bool              `name:"on"`
	Share   float64           `name:"share" min:"0" max:"1"`
	Size    Bytes             `name:"size" min:"1KiB"`
	Mode    string            `name:"mode" oneof:"fast EXACT"`
	Kafka   kafkaSample       `name:"kafka"`
	Mapping map[string]string `name:"mapping"`
}

type kafkaSample struct {
	Brokers  []string      `name:"brokers" flag:"kafka"`
	Timeout  time.Duration `name:"timeout" min:"1ms"`
	Password string        `name:"password" secret:"true"`
}

func defaults() sample {
	return sample{Data: "dir", Count: 3, Share: 0.5, Size: 8 << 20, Mode: "fast", Kafka: kafkaSample{Timeout: 2 * time.Second}}
}

func load(yaml string, environ []string, flags ...string) (sample, *Settings, error) {
	s := defaults()
	src := Sources{File: "x.yaml", Content: []byte(yaml), Environ: environ, Prefix: "APP_", Ignore: []string{"APP_SHARED"}}
	for _, f := range flags {
		name, value, _ := strings.Cut(f, "=")
		src.Flags = append(src.Flags, FlagValue{name, value})
	}
	settings, err := Load(&s, src)
	return s, settings, err
}

func TestPrecedence(t *testing.T) {
	file, env, flag := "# comment\ncount: 4\n", []string{"APP_COUNT=5", "HOME=/", "APP_SHARED=1"}, "count=6"
	for _, tt := range []struct {
		name   string
		file   string
		env    []string
		flags  []string
		want   int
		origin string
	}{
		{"default", "", nil, nil, 3, "default"},
		{"file", file, nil, nil, 4, "x.yaml:2"},
		{"environment over file", file, env, nil, 5, "env APP_COUNT"},
		{"flag over environment", file, env, []string{flag}, 6, "flag --count"},
		{"flag over file", file, nil, []string{flag}, 6, "flag --count"},
		{"the last flag", "", nil, []string{"count=7", flag}, 6, "flag --count"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, settings, err := load(tt.file, tt.env, tt.flags...)
			if err != nil {
				t.Fatal(err)
			}
			if s.Count != tt.want || settings.Origin("count").String() != tt.origin {
				t.Errorf("count %d from %s, want %d from %s", s.Count, settings.Origin("count"), tt.want, tt.origin)
			}
			if settings.Origin("count").IsDefault() != (tt.origin == "default") {
				t.Errorf("IsDefault is wrong for %s", tt.origin)
			}
		})
	}
}

func TestValues(t *testing.T) {
	everything := sample{
		Data: "a b", Count: 7, On: true, Share: 0.25, Size: 3 << 19, Mode: "EXACT",
		Kafka:   kafkaSample{Brokers: []string{"a:1", "b:2"}, Timeout: 90 * time.Second, Password: "007"},
		Mapping: map[string]string{"team": "$.team", "year": "$.y"},
	}
	for name, tt := range map[string]struct {
		yaml  string
		env   []string
		flags []string
		want  sample
	}{
		"nested file": {yaml: `
data: "a b"
count: 7
on: true
share: 0.25
size: 1.5MiB
mode: exact
kafka:
  brokers: [a:1, b:2]
  timeout: 1m30s
  password: 007
mapping: {team: $.team, year: $.y}
`, want: everything},
		"dotted file, list as text, anchors": {yaml: `
data: &d a b
count: 7
on: true
share: 0.25
size: 1536KiB
mode: Exact
kafka.brokers: a:1, b:2
kafka: {timeout: 90s, password: "007"}
mapping: {team: $.team, year: $.y}
`, want: everything},
		"environment": {env: []string{"APP_DATA=a b", "APP_COUNT=7", "APP_ON=TRUE", "APP_SHARE=.25", "APP_SIZE=1572864", "APP_MODE=EXACT",
			"APP_KAFKA_BROKERS=a:1,b:2", "APP_KAFKA_TIMEOUT=90s", "APP_KAFKA_PASSWORD=007", "APP_MAPPING=team=$.team,year=$.y"}, want: everything},
		"flags, lists add up": {env: []string{"APP_KAFKA_PASSWORD=007", "APP_KAFKA_BROKERS=z:9"}, flags: []string{"data=a b", "count=7", "on=true", "share=0.25",
			"size=1.5 mib", "mode=exact", "kafka=a:1", "kafka=b:2", "kafka.timeout=1m30s", "mapping=team=$.team", "mapping={year: $.y}"}, want: everything},
		"empty sections and values leave the defaults": {yaml: "kafka:\ncount:\n", want: defaults()},
		"a file of comments":                           {yaml: "# nothing\n", want: defaults()},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := load(tt.yaml, tt.env, tt.flags...)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		yaml  string
		env   string
		flag  string
		wants []string
	}{
		{yaml: "cout: 1", wants: []string{"cout: is no setting; did you mean count? (x.yaml:1)"}},
		{yaml: "kafka:\n  broker: a:1", wants: []string{"kafka.broker: is no setting; did you mean kafka.brokers? (x.yaml:2)"}},
		{yaml: "brokers: a:1", wants: []string{"brokers: is no setting; did you mean kafka.brokers?"}},
		{yaml: "zzzzzz: 1", wants: []string{"zzzzzz: is no setting (x.yaml:1)"}},
		{yaml: "config: other.yaml", wants: []string{"config: can't be set in the file: use --config or APP_CONFIG"}},
		{yaml: "count: 1\ncount: 2", wants: []string{"count: is set twice, first in line 1 (x.yaml:2)"}},
		{yaml: "kafka.timeout: 1s\nkafka: {timeout: 2s}", wants: []string{"kafka.timeout: is set twice"}},
		{yaml: "kafka: a:1", wants: []string{"kafka: must be a mapping with the keys brokers, timeout, password"}},
		{yaml: "- count", wants: []string{"x.yaml: must be a mapping with the keys data, "}},
		{yaml: "a: b: c", wants: []string{"x.yaml is not YAML: "}},
		{yaml: "count: 1\n---\ncount: 2", wants: []string{"x.yaml holds several YAML documents"}},
		{yaml: "count: [1]", wants: []string{"count: must be a whole number, not a list"}},
		{yaml: "count: {a: 1}", wants: []string{"count: must be a whole number, not a mapping"}},
		{yaml: "kafka: {brokers: [[a]]}", wants: []string{"kafka.brokers: must be a list of plain values"}},
		{yaml: "mapping: {a: [b]}", wants: []string{"mapping: must be a mapping from names to plain values"}},
		{yaml: "count: 0", wants: []string{"count: must be from 1 to 10, not 0 (x.yaml:1)"}},
		{flag: "count=11", wants: []string{"count: must be from 1 to 10, not 11 (flag --count)"}},
		{flag: "count=1.5", wants: []string{`count: "1.5" is no whole number`}},
		{flag: "share=1.01", wants: []string{"share: must be from 0 to 1, not 1.01"}},
		{flag: "share=NaN", wants: []string{`share: "NaN" is no number`}},
		{flag: "size=1000", wants: []string{"size: must be 1KiB or more, not 1000"}},
		{flag: "size=8 bananas", wants: []string{`size: "8 bananas" is no size`}},
		{flag: "on=yes", wants: []string{`on: must be true or false, not "yes"`}},
		{flag: "kafka.timeout=5", wants: []string{`kafka.timeout: "5" is no duration: write it with a unit`}},
		{flag: "kafka.timeout=0s", wants: []string{"kafka.timeout: must be 1ms or more, not 0s"}},
		{flag: "mode=slow", wants: []string{`mode: must be one of fast, EXACT, not "slow"`}},
		{flag: "mapping=team", wants: []string{`mapping: "team" is no name=value`}},
		{flag: "kafka.password=x", wants: []string{"--kafka.password: is no flag"}},
		{env: "APP_COUNTT=1", wants: []string{"APP_COUNTT: is no setting; did you mean APP_COUNT?"}},
		{env: "APP_SECRET=1", wants: []string{"APP_SECRET: is no setting"}},
		{yaml: "count: 0\nnope: 1", env: "APP_SIZE=x", flag: "mode=y", wants: []string{"count: must", "nope: is no setting", "size: ", "mode: must"}},
	} {
		t.Run(tt.yaml+tt.env+tt.flag, func(t *testing.T) {
			var env, flags []string
			if tt.env != "" {
				env = []string{tt.env}
			}
			if tt.flag != "" {
				flags = []string{tt.flag}
			}
			_, _, err := load(tt.yaml, env, flags...)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.wants {
				if !slices.ContainsFunc(strings.Split(err.Error(), "\n"), func(line string) bool { return strings.HasPrefix(line, want) }) {
					t.Errorf("no line of\n%s\nbegins with %s", err, want)
				}
			}
		})
	}
}

func TestSecretsAreMaskedAndNoFlags(t *testing.T) {
	_, settings, err := load("kafka: {password: hunter2}", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := settings.Show("kafka.password"); got != Masked {
		t.Errorf("Show: %q", got)
	}
	if got := settings.Value("kafka.password"); got != Masked {
		t.Errorf("Value: %q", got)
	}
	for _, s := range settings.All() {
		if s.Secret != (s.Flag == "") {
			t.Errorf("%s: secret %v, flag %q", s.Name, s.Secret, s.Flag)
		}
	}
	_, settings, _ = load("", nil)
	if got := settings.Show("kafka.password"); got != "" {
		t.Errorf("an unset secret shows as %q", got)
	}
}

func TestDefaultsReadBack(t *testing.T) {
	want := defaults()
	want.Kafka.Brokers = []string{"a:1", "b:2"}
	want.Mapping = map[string]string{"a": "1", "b": "2"}
	_, settings, err := load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := sample{}
	into := &Settings{value: reflect.ValueOf(&got).Elem(), origins: map[string]Origin{}}
	for _, d := range Describe(want, "APP_") {
		if d.Name == "config" {
			continue
		}
		if err := into.set(settings.byName[d.Name], d.Default, Origin{}, false); err != nil {
			t.Errorf("%s: %q: %v", d.Name, d.Default, err)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{"0": 0, "17": 17, "17B": 17, "1kB": 1000, "1 KiB": 1024, "8MiB": 8 << 20, "8mib": 8 << 20, "1.5GiB": 3 << 29, "2TB": 2e12} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1e3", "Inf", "NaN", "9999999999GiB", "9e999", "1.2.3MiB", "0x10"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
	for size, want := range map[Bytes]string{0: "0", 1: "1", 1000: "1000", 1024: "1KiB", 3 << 19: "1536KiB", 8 << 20: "8MiB", 1 << 40: "1TiB"} {
		if got := size.String(); got != want {
			t.Errorf("%d: %s, want %s", int64(size), got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"query", "put", "import", "version", "kafka.brokers", "tokens"}
	for word, want := range map[string]string{"qurey": "query", "quer": "query", "imprt": "import", "vers": "version", "brokers": "kafka.brokers", "token": "tokens", "xyz": "", "": "", "q": ""} {
		if got := Nearest(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("count: 4\nkafka: {brokers: [a:1], timeout: 3s}\nmapping: {a: b}\nsize: 8MiB", "a=b,c=d")
	f.Add("a: &a [*a]\n", "{a: b}")
	f.Add("<<: {count: 1}\n? [x]\n: y", "9.9TiB")
	f.Fuzz(func(t *testing.T, yaml, value string) {
		s, settings, err := load(yaml, []string{"APP_MAPPING=" + value, "APP_SIZE=" + value, "APP_SHARE=" + value})
		if settings == nil {
			t.Fatal("no settings")
		}
		if err != nil {
			return
		}
		if s.Count < 1 || s.Count > 10 || s.Size < 1<<10 || s.Share < 0 || s.Share > 1 || s.Kafka.Timeout < time.Millisecond {
			t.Errorf("out of bounds without an error: %+v", s)
		}
	})
}
