// Package compose holds compose.yaml and the Dockerfile to what the program and its tests really are. Neither needs a container engine for
// it: the files are read by the library that Compose is made with, and the command lines are compared with the program's own help.
package compose

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

const root = "../.."

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// find returns what the expression's only group matches in a file.
func find(t *testing.T, name, expression string) string {
	t.Helper()
	m := regexp.MustCompile(expression).FindStringSubmatch(read(t, name))
	if m == nil {
		t.Fatalf("%s has nothing like %s", name, expression)
	}
	return m[1]
}

// load reads compose.yaml as Compose does, against the schema, and in an empty environment, so that it is the same everywhere.
func load(t *testing.T) *types.Project {
	t.Helper()
	dir, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  dir,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(dir, "compose.yaml"), Content: []byte(read(t, "compose.yaml"))}},
		Environment: types.Mapping{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func service(t *testing.T, p *types.Project, name string) types.ServiceConfig {
	t.Helper()
	s, ok := p.Services[name]
	if !ok {
		t.Fatalf("there is no service %s", name)
	}
	return s
}

func TestServices(t *testing.T) {
	p := load(t)
	if got := p.ServiceNames(); !slices.Equal(got, []string{"kafka", "liverag"}) {
		t.Errorf("services: %v", got)
	}
	kafka, liverag := service(t, p, "kafka"), service(t, p, "liverag")

	// The broker that is shipped is the one that the tests run against.
	if want := "apache/kafka:" + find(t, ".ci/kafka", `(?m)^version=(\S+)`); kafka.Image != want {
		t.Errorf("kafka's image is %s; the tests run against %s", kafka.Image, want)
	}
	if liverag.Image != "" || liverag.Build == nil || !sameDir(t, liverag.Build.Context, root) || liverag.Build.Dockerfile != "Dockerfile" {
		t.Errorf("liverag is not built from this directory's Dockerfile: image %q, build %+v", liverag.Image, liverag.Build)
	}

	if d, ok := liverag.DependsOn["kafka"]; !ok || d.Condition != types.ServiceConditionHealthy {
		t.Errorf("liverag starts before kafka is healthy: %+v", liverag.DependsOn)
	}
	if h := kafka.HealthCheck; h == nil || h.Disable || len(h.Test) < 2 || h.Test[0] == "NONE" || h.Retries == nil || h.Interval == nil || h.Timeout == nil {
		t.Errorf("kafka's health is not checked in a bounded time: %+v", h)
	}
}

func sameDir(t *testing.T, a, b string) bool {
	t.Helper()
	x, err := os.Stat(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.Stat(b)
	if err != nil {
		t.Fatal(err)
	}
	return os.SameFile(x, y)
}

// There is no authentication, so nothing may be reachable from another machine.
func TestPortsArePublishedHereOnly(t *testing.T) {
	p := load(t)
	for name, s := range p.Services {
		if len(s.Ports) == 0 {
			t.Errorf("%s publishes no port", name)
		}
		if s.NetworkMode != "" {
			t.Errorf("%s has network_mode %s, which publishes everything", name, s.NetworkMode)
		}
		for _, port := range s.Ports {
			if ip := net.ParseIP(port.HostIP); ip == nil || !ip.IsLoopback() {
				t.Errorf("%s publishes %s on %q instead of 127.0.0.1", name, port.Published, port.HostIP)
			}
		}
	}
}

func TestKafkaIsFound(t *testing.T) {
	p := load(t)
	kafka := service(t, p, "kafka")
	env := func(name string) string {
		v, ok := kafka.Environment[name]
		if !ok || v == nil {
			t.Fatalf("kafka lacks %s", name)
		}
		return *v
	}
	listeners, advertised := addresses(t, env("KAFKA_LISTENERS")), addresses(t, env("KAFKA_ADVERTISED_LISTENERS"))
	protocols := env("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP")
	for name := range listeners {
		if !slices.ContainsFunc(strings.Split(protocols, ","), func(s string) bool { return strings.HasPrefix(s, name+":") }) {
			t.Errorf("listener %s has no protocol in %s", name, protocols)
		}
	}
	for name, a := range advertised {
		if listeners[name].port != a.port {
			t.Errorf("%s is advertised at %s and listens on %s", name, a.port, listeners[name].port)
		}
	}

	inside := flags(t, service(t, p, "liverag").Command)["kafka"]
	if a := advertised[env("KAFKA_INTER_BROKER_LISTENER_NAME")]; net.JoinHostPort(a.host, a.port) != inside || a.host != kafka.Name {
		t.Errorf("liverag is told %q, and kafka advertises %+v", inside, a)
	}
	for _, port := range kafka.Ports {
		outside := address{port.HostIP, port.Published}
		if !slices.ContainsFunc(names(advertised), func(name string) bool {
			return advertised[name] == outside && listeners[name].port == strconv.FormatUint(uint64(port.Target), 10)
		}) {
			t.Errorf("%v is published and advertised by no listener, so a client would be sent elsewhere: %v", outside, advertised)
		}
	}
	// The image takes its own configuration only while the environment holds none; Kafka's default is a directory below /tmp.
	if dir := env("KAFKA_LOG_DIRS"); !mounted(kafka, dir) {
		t.Errorf("kafka writes to %s, which is in no volume: its log would be lost with the container", dir)
	}
	if got := env("KAFKA_AUTO_CREATE_TOPICS_ENABLE"); got != "false" {
		t.Errorf("KAFKA_AUTO_CREATE_TOPICS_ENABLE is %s: a topic that a client misspells would exist, not compacted", got)
	}
}

type address struct{ host, port string }

// addresses reads a list of NAME://HOST:PORT.
func addresses(t *testing.T, list string) map[string]address {
	t.Helper()
	out := map[string]address{}
	for s := range strings.SplitSeq(list, ",") {
		name, hostPort, ok := strings.Cut(s, "://")
		host, port, err := net.SplitHostPort(hostPort)
		if !ok || err != nil {
			t.Fatalf("%q is no listener: %v", s, err)
		}
		out[name] = address{host, port}
	}
	return out
}

func names(m map[string]address) []string {
	var out []string
	for name := range m {
		out = append(out, name)
	}
	return out
}

func mounted(s types.ServiceConfig, dir string) bool {
	return slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool {
		return v.Target == dir || strings.HasPrefix(dir, v.Target+"/")
	})
}

func TestWhatIsWrittenIsKept(t *testing.T) {
	p := load(t)
	for name, s := range p.Services {
		if len(s.Volumes) == 0 {
			t.Errorf("%s has no volume", name)
		}
		for _, v := range s.Volumes {
			if _, ok := p.Volumes[v.Source]; v.Type != types.VolumeTypeVolume || !ok || v.ReadOnly {
				t.Errorf("%s mounts %s %q at %s, which is no volume of this file that can be written", name, v.Type, v.Source, v.Target)
			}
		}
	}
	liverag := service(t, p, "liverag")
	if dir := flags(t, liverag.Command)["data"]; !mounted(liverag, dir) {
		t.Errorf("--data %q is in no volume", dir)
	}
}

func TestLiveragListensWhereItIsPublished(t *testing.T) {
	liverag := service(t, load(t), "liverag")
	given := flags(t, liverag.Command)
	host, port, err := net.SplitHostPort(given["listen"])
	if err != nil {
		t.Fatal(err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
		t.Errorf("inside the container it listens on %s, where a published port does not arrive", host)
	}
	if len(liverag.Ports) != 1 || strconv.FormatUint(uint64(liverag.Ports[0].Target), 10) != port {
		t.Errorf("it listens on %s, and this is published: %+v", port, liverag.Ports)
	}
	if given["insecure_listen"] != "true" {
		t.Error("without --insecure_listen it refuses an address that is not of the loopback interface")
	}
}

func TestDockerfile(t *testing.T) {
	goVersion := find(t, "go.mod", `(?m)^go (\d+\.\d+)`)
	if got := find(t, "Dockerfile", `(?m)^FROM golang:(\S+)`); got != goVersion {
		t.Errorf("the image is built with Go %s, go.mod says %s", got, goVersion)
	}
	var command []string
	if err := json.Unmarshal([]byte(find(t, "Dockerfile", `(?m)^CMD (.*)$`)), &command); err != nil {
		t.Fatalf("CMD is no JSON array, so that a shell would be needed: %v", err)
	}
	given := flags(t, command)
	if volume := find(t, "Dockerfile", `(?m)^VOLUME (\S+)$`); given["data"] != volume {
		t.Errorf("--data %q is not the image's volume %s", given["data"], volume)
	}
	if _, port, err := net.SplitHostPort(given["listen"]); err != nil || port != find(t, "Dockerfile", `(?m)^EXPOSE (\d+)$`) {
		t.Errorf("--listen %q is not the port that is exposed", given["listen"])
	}
	var entry []string
	if err := json.Unmarshal([]byte(find(t, "Dockerfile", `(?m)^ENTRYPOINT (.*)$`)), &entry); err != nil || len(entry) != 1 {
		t.Fatalf("ENTRYPOINT: %v, %v", entry, err)
	}
	if built := find(t, "Dockerfile", `go build .* -o (\S+) \./cmd/liverag`); path.Clean(entry[0]) != built {
		t.Errorf("%s is built and %s is run", built, entry[0])
	}
}

// flags reads a container's command as the program would: a verb, then flags that its help lists. It fails the test on anything else.
func flags(t *testing.T, command []string) map[string]string {
	t.Helper()
	if len(command) == 0 {
		t.Fatal("there is no command")
	}
	given, err := parse(read(t, "cmd/liverag/testdata/help/"+command[0]+".txt"), command[1:])
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(command, " "), err)
	}
	return given
}

// flagLine is a flag's line in the help; the group after its name is there if it takes a value.
var flagLine = regexp.MustCompile(`(?m)^  --?([a-z][a-z0-9_.-]*)( [A-Z]\S*)?(?:  |$)`)

func parse(help string, args []string) (map[string]string, error) {
	takesValue := map[string]bool{}
	for _, m := range flagLine.FindAllStringSubmatch(help, -1) {
		takesValue[m[1]] = m[2] != ""
	}
	given := map[string]string{}
	for len(args) > 0 {
		name, ok := strings.CutPrefix(args[0], "--")
		if !ok {
			return nil, fmt.Errorf("%q is no flag", args[0])
		}
		args = args[1:]
		name, value, hasValue := strings.Cut(name, "=")
		wants, known := takesValue[name]
		switch {
		case !known:
			return nil, fmt.Errorf("the help knows no --%s", name)
		case hasValue:
		case !wants:
			value = "true"
		case len(args) == 0:
			return nil, fmt.Errorf("--%s needs a value", name)
		default:
			value, args = args[0], args[1:]
		}
		given[name] = value
	}
	return given, nil
}

// TestParse holds the reader of command lines itself, which would be worth nothing if it let everything pass.
func TestParse(t *testing.T) {
	help := read(t, "cmd/liverag/testdata/help/up.txt")
	given, err := parse(help, []string{"--demo", "--data", "/d", "--kafka.replication_factor=3", "--mapping.metadata", "a=b"})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(given); got != "map[data:/d demo:true kafka.replication_factor:3 mapping.metadata:a=b]" {
		t.Error(got)
	}
	for _, bad := range []string{"--dataa /d", "--data", "-data /d", "up", "--demo yes", "--kafka.sasl.password x"} {
		if _, err := parse(help, strings.Fields(bad)); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}
