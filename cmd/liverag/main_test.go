package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/liverag/liverag/internal/config"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"liverag": main, "cutter": cutter})
}

// TestScripts runs the program itself, as a process.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  filepath.Join("testdata", "script"),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits runs a command and holds it to its exit code: exits 2 liverag put.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARGS…]")
	}
	code := "0"
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		code = fmt.Sprint(exit.ExitCode())
	} else if err != nil {
		ts.Fatalf("run %s: %v", args[1], err)
	}
	if code != args[0] {
		ts.Fatalf("%s exited with %s, not %s", strings.Join(args[1:], " "), code, args[0])
	}
}

// outcome is what a command line printed, and its exit code.
type outcome struct {
	code     int
	out, err string
}

// invoke runs a command line in this process, in an empty directory and an empty environment unless told otherwise.
func invoke(t *testing.T, environ []string, stdin string, args ...string) outcome {
	t.Helper()
	var out, errOut bytes.Buffer
	code := run(t.Context(), args, environ, strings.NewReader(stdin), &out, &errOut)
	return outcome{code, out.String(), errOut.String()}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: write it with go test ./cmd/liverag -update", err)
	}
	if got != string(want) {
		t.Errorf("%s is out of date: go test ./cmd/liverag -update writes it\n--- got\n%s\n--- want\n%s", path, got, want)
	}
}

// everyVerb are all verbs, those of two words too.
func everyVerb() []verb {
	var all []verb
	for _, v := range verbs() {
		all = append(append(all, v), v.subverbs...)
	}
	return all
}

func TestHelp(t *testing.T) {
	golden(t, "help/liverag.txt", invoke(t, nil, "", "--help").out)
	for _, v := range everyVerb() {
		t.Run(v.name, func(t *testing.T) {
			words := strings.Fields(v.name)
			got := invoke(t, nil, "", append(words, "--help")...)
			if got.code != exitDone || got.err != "" {
				t.Errorf("code %d, stderr %q", got.code, got.err)
			}
			golden(t, "help/"+strings.Join(words, "-")+".txt", got.out)
			if other := invoke(t, nil, "", append([]string{"help"}, words...)...); other != got {
				t.Error("`help VERB` and `VERB --help` differ")
			}
		})
	}
}

// TestVerbsAreWhole holds every verb to what a reader of the help may expect.
func TestVerbsAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range everyVerb() {
		if seen[v.name] {
			t.Errorf("%s is there twice", v.name)
		}
		seen[v.name] = true
		if v.summary == "" || strings.HasSuffix(v.summary, ".") || len(v.summary) > 90 {
			t.Errorf("%s: the summary should be one line without a full stop: %q", v.name, v.summary)
		}
		if v.about == "" || len(v.examples) < 2 {
			t.Errorf("%s needs a text and at least two examples", v.name)
		}
		for _, e := range v.examples {
			if !strings.Contains(e.line, "liverag "+v.name) {
				t.Errorf("%s: the example %q does not use it", v.name, e.line)
			}
		}
		if !strings.Contains(" "+strings.Join(groups, " ")+" ", v.group) || v.group == "" {
			t.Errorf("%s has the unknown group %q", v.name, v.group)
		}
		fs := flag.NewFlagSet(v.name, flag.ContinueOnError)
		if v.setup(fs) == nil {
			t.Errorf("%s has no action", v.name)
		}
		if fs.Lookup("json") != nil {
			t.Errorf("%s declares --json itself", v.name)
		}
		for _, s := range settingsOf(&v) {
			if s.Flag != "" && fs.Lookup(s.Flag) != nil {
				t.Errorf("%s: --%s is a flag of its own and a setting", v.name, s.Flag)
			}
		}
		for _, pattern := range v.settings {
			if len(settingsOf(&verb{settings: []string{pattern}})) == 0 {
				t.Errorf("%s uses the setting %s, which there is not", v.name, pattern)
			}
		}
	}
}

func TestParseArgs(t *testing.T) {
	newVerb := func() (*verb, *flag.FlagSet) {
		fs := flag.NewFlagSet("v", flag.ContinueOnError)
		fs.SetOutput(io.Discard)
		fs.Bool("yes", false, "")
		fs.String("title", "", "")
		fs.Int("k", 5, "")
		fs.Duration("wait", 0, "")
		return &verb{name: "v", settings: []string{"server", "insecure_listen", "kafka.*"}}, fs
	}
	for _, tt := range []struct {
		args       string
		positional string
		settings   string
		flags      string
		err        string
	}{
		{args: "a --title t b", positional: "a b", flags: "title=t"},
		{args: "--yes a -k 3 --wait=2s", positional: "a", flags: "k=3 wait=2s yes=true"},
		{args: "-title=x --yes=false - -- --title y", positional: "- --title y", flags: "title=x yes=false"},
		{args: "--server http://x a --insecure_listen b", positional: "a b", settings: "server=http://x insecure_listen=true"},
		{args: "--kafka a:1 --kafka.tls.ca_file f --kafka.replication_factor -1", settings: "kafka=a:1 kafka.tls.ca_file=f kafka.replication_factor=-1"},
		{args: "--title", err: "--title needs a value"},
		{args: "-k x", err: `--k: "x" is not a whole number`},
		{args: "--wait 5", err: `--wait: "5" is not a duration with a unit, like 250ms, 2s or 1m30s`},
		{args: "--yes=maybe", err: `--yes: "maybe" is not true or false`},
		{args: "--titel x", err: "there is no flag --titel"},
		{args: "--tokens 3", err: "--tokens is a setting that `liverag v` does not use"},
		{args: "--kafka.sasl.password p", err: "--kafka.sasl.password is no flag: arguments can be seen by everybody on the machine, so a secret never is one"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			v, fs := newVerb()
			line, err := parseArgs(v, fs, strings.Fields(tt.args))
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var settings, flags []string
			for _, s := range line.settings {
				settings = append(settings, s.Name+"="+s.Value)
			}
			fs.VisitAll(func(f *flag.Flag) {
				if f.Value.String() != f.DefValue {
					flags = append(flags, f.Name+"="+f.Value.String())
				}
			})
			if tt.args == "-title=x --yes=false - -- --title y" {
				flags = append(flags, "yes="+fs.Lookup("yes").Value.String())
			}
			if got := strings.Join(line.positional, " "); got != tt.positional {
				t.Errorf("positional %q", got)
			}
			if got := strings.Join(settings, " "); got != tt.settings {
				t.Errorf("settings %q", got)
			}
			if got := strings.Join(flags, " "); got != tt.flags {
				t.Errorf("flags %q", got)
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errOut bytes.Buffer
	code := run(ctx, []string{"generations", "--server", "http://127.0.0.1:1"}, nil, nil, &out, &errOut)
	if code != exitFailed || errOut.String() != "liverag generations: interrupted\n" {
		t.Errorf("code %d, %q", code, errOut.String())
	}
}

func TestTextForPeople(t *testing.T) {
	if got := wrap("one two  three\nfour-and-more x", 9); strings.Join(got, "|") != "one two|three|four-and-more|x" {
		t.Errorf("wrap: %q", got)
	}
	if got := cut("äöüß", 3); got != "äö…" {
		t.Errorf("cut: %q", got)
	}
	if got := plain("a\x1b[31mb\tc\u0085"); got != "a [31mb c " {
		t.Errorf("plain: %q", got)
	}
	for n, want := range map[int]string{0: "0 entries", 1: "1 entry", 1234567: "1,234,567 entries", -1000: "-1,000 entries"} {
		if got := count(n, "entry"); got != want {
			t.Errorf("count: %q, want %q", got, want)
		}
	}
	if got := snippet(strings.Repeat("word ", 400), 20, 2); len(got) != 2 || got[1] != "word word word …" {
		t.Errorf("snippet: %q", got)
	}
	if got := snippet("short", 20, 2); len(got) != 1 || got[0] != "short" {
		t.Errorf("snippet: %q", got)
	}
	colourful := &terminal{Writer: io.Discard, Colour: true}
	if colourful.bad("x") == "x" {
		t.Error("no colour where it was asked for")
	}
	if newTerminal(&bytes.Buffer{}, nil).Colour {
		t.Error("colour in a buffer")
	}
}

func TestSettingsOfPatterns(t *testing.T) {
	names := func(patterns ...string) (out []string) {
		for _, s := range settingsOf(&verb{settings: patterns}) {
			out = append(out, s.Name)
		}
		return out
	}
	if got := names("kafka.sasl.*", "data"); strings.Join(got, " ") != "data kafka.sasl.mechanism kafka.sasl.user kafka.sasl.password kafka.sasl.token" {
		t.Errorf("%q", got)
	}
	if got, all := len(names("*")), len(config.Describe(defaultConfig(), envPrefix)); got != all {
		t.Errorf("* stands for %d of %d settings", got, all)
	}
}
