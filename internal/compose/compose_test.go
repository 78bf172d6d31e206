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

// ours are the services that run the program.
func ours(t *testing.T, p *types.Project) []types.ServiceConfig {
	t.Helper()
	return []types.ServiceConfig{service(t, p, "serve"), service(t, p, "index")}
}

// environment returns a variable of a service, which must be there.
func environment(t *testing.T, s types.ServiceConfig, name string) string {
	t.Helper()
	v, ok := s.Environment[name]
	if !ok || v == nil {
		t.Fatalf("%s lacks %s", s.Name, name)
	}
	return *v
}

func TestServices(t *testing.T) {
	p := load(t)
	got := p.ServiceNames()
	slices.Sort(got)
	if !slices.Equal(got, []string{"etcd", "index", "kafka", "milvus", "minio", "serve"}) {
		t.Errorf("services: %v", got)
	}
	// The broker that is shipped is the one that the tests run against.
	if kafka, want := service(t, p, "kafka"), "apache/kafka:"+find(t, ".ci/kafka", `(?m)^version=(\S+)`); kafka.Image != want {
		t.Errorf("kafka's image is %s; the tests run against %s", kafka.Image, want)
	}
	for _, s := range ours(t, p) {
		if s.Image != "" || s.Build == nil || !sameDir(t, s.Build.Context, root) || s.Build.Dockerfile != "Dockerfile" {
			t.Errorf("%s is not built from this directory's Dockerfile: image %q, build %+v", s.Name, s.Image, s.Build)
		}
		if len(s.Command) == 0 || s.Command[0] != s.Name {
			t.Errorf("%s runs %v", s.Name, s.Command)
		}
	}
	if d := service(t, p, "index").Deploy; d == nil || d.Replicas == nil || *d.Replicas != 2 {
		t.Errorf("index is to run twice: %+v", d)
	}
	for name, needs := range map[string][]string{"serve": {"kafka", "milvus"}, "index": {"kafka", "milvus"}, "milvus": {"etcd", "minio"}} {
		s := service(t, p, name)
		for _, needed := range needs {
			if d, ok := s.DependsOn[needed]; !ok || d.Condition != types.ServiceConditionHealthy {
				t.Errorf("%s starts before %s is healthy: %+v", name, needed, s.DependsOn)
			}
		}
	}
	for name, s := range p.Services {
		if h := s.HealthCheck; h == nil || h.Disable || len(h.Test) < 2 || h.Test[0] == "NONE" || h.Retries == nil || h.Interval == nil || h.Timeout == nil {
			t.Errorf("%s' health is not checked in a bounded time: %+v", name, h)
		}
		if s.Build == nil && !regexp.MustCompile(`^[a-z0-9]+/[a-z0-9]+:[A-Za-z]*[.0-9][A-Za-z0-9.-]*$`).MatchString(s.Image) {
			t.Errorf("%s' image is %s: neither a host nor a tag that moves", name, s.Image)
		}
	}
}

// TestHealthOfTheProgram reads what asks the program for its health as the program does.
func TestHealthOfTheProgram(t *testing.T) {
	for _, s := range ours(t, load(t)) {
		if len(s.HealthCheck.Test) < 3 || s.HealthCheck.Test[0] != "CMD" || s.HealthCheck.Test[1] != "/liverag" {
			t.Fatalf("%s is asked by %v", s.Name, s.HealthCheck.Test)
		}
		_, port, err := net.SplitHostPort(flags(t, s.Command)["listen"])
		if asked := flags(t, s.HealthCheck.Test[2:])["server"]; err != nil || asked != "http://127.0.0.1:"+port {
			t.Errorf("%s listens on %s and is asked at %s: %v", s.Name, port, asked, err)
		}
	}
}

// TestMilvusIsFound holds the addresses to the names and ports of who listens there, and the version to what the store needs.
func TestMilvusIsFound(t *testing.T) {
	p := load(t)
	milvus, etcd, minio := service(t, p, "milvus"), service(t, p, "etcd"), service(t, p, "minio")
	for _, s := range ours(t, p) {
		if got := flags(t, s.Command)["milvus"]; got != "milvus:19530" {
			t.Errorf("%s looks for Milvus at %s", s.Name, got)
		}
	}
	if len(milvus.Ports) != 1 || milvus.Ports[0].Target != 19530 {
		t.Errorf("milvus publishes %+v", milvus.Ports)
	}
	at := environment(t, milvus, "ETCD_ENDPOINTS")
	listeners := addresses(t, strings.ReplaceAll(environment(t, etcd, "ETCD_LISTEN_CLIENT_URLS"), "http://", "client://"))
	if advertised := environment(t, etcd, "ETCD_ADVERTISE_CLIENT_URLS"); advertised != "http://"+at || at != etcd.Name+":"+listeners["client"].port {
		t.Errorf("milvus looks for etcd at %s; it is advertised at %s and listens on %+v", at, advertised, listeners)
	}
	if dir := environment(t, etcd, "ETCD_DATA_DIR"); !mounted(etcd, dir) {
		t.Errorf("etcd writes to %s, which is in no volume", dir)
	}
	if at := environment(t, milvus, "MINIO_ADDRESS"); at != minio.Name+":9000" {
		t.Errorf("milvus looks for the object store at %s", at)
	}
	if len(minio.Command) != 2 || minio.Command[0] != "server" || !mounted(minio, minio.Command[1]) {
		t.Errorf("minio runs %v, which writes to no volume", minio.Command)
	}
	for theirs, its := range map[string]string{"MINIO_ACCESS_KEY_ID": "MINIO_ROOT_USER", "MINIO_SECRET_ACCESS_KEY": "MINIO_ROOT_PASSWORD"} {
		if environment(t, milvus, theirs) != environment(t, minio, its) {
			t.Errorf("milvus' %s is not minio's %s", theirs, its)
		}
	}
	version := regexp.MustCompile(`^milvusdb/milvus:v2\.(\d+)\.\d+$`).FindStringSubmatch(milvus.Image)
	if version == nil {
		t.Fatalf("milvus' image is %s", milvus.Image)
	}
	if minor, err := strconv.Atoi(version[1]); err != nil || minor < 4 {
		t.Errorf("%s has no sparse vectors", milvus.Image)
	}
	if !slices.Equal(milvus.Command, []string{"milvus", "run", "standalone"}) {
		t.Errorf("milvus runs %v", milvus.Command)
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
		if wanted := slices.Contains([]string{"kafka", "milvus", "serve"}, name); wanted != (len(s.Ports) > 0) {
			t.Errorf("%s publishes %d ports", name, len(s.Ports))
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
	env := func(name string) string { return environment(t, kafka, name) }
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

	for _, s := range ours(t, p) {
		inside := flags(t, s.Command)["kafka"]
		if a := advertised[env("KAFKA_INTER_BROKER_LISTENER_NAME")]; net.JoinHostPort(a.host, a.port) != inside || a.host != kafka.Name {
			t.Errorf("%s is told %q, and kafka advertises %+v", s.Name, inside, a)
		}
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
		// Two of one service can't share a volume: each has the one that the image asks for.
		if named := len(s.Volumes) > 0; named == (name == "index") {
			t.Errorf("%s has %d volumes of this file", name, len(s.Volumes))
		}
		for _, v := range s.Volumes {
			if _, ok := p.Volumes[v.Source]; v.Type != types.VolumeTypeVolume || !ok || v.ReadOnly {
				t.Errorf("%s mounts %s %q at %s, which is no volume of this file that can be written", name, v.Type, v.Source, v.Target)
			}
		}
	}
	for _, s := range ours(t, p) {
		if dir := flags(t, s.Command)["data"]; dir != find(t, "Dockerfile", `(?m)^VOLUME (\S+)$`) || s.Name != "index" && !mounted(s, dir) {
			t.Errorf("%s: --data %q is in no volume", s.Name, dir)
		}
	}
}

func TestLiveragListensWhereItIsPublished(t *testing.T) {
	liverag := service(t, load(t), "serve")
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
