// Command liverag keeps a search index of changing documents fresh: change a document, and moments later every answer shows it.
//
// `liverag --help` says how to begin. Each verb has a file of its own here; config.go holds every setting, and wire.go is the only
// place that knows every adapter.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/liverag/liverag/internal/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal asks to finish, the second one kills
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// verb is one thing the program does.
type verb struct {
	name string
	// group is the heading of the help under which it stands.
	group string
	// args spells the positional arguments, "" if there are none.
	args string
	// summary is one line without a full stop.
	summary string
	// about is the help's text, in paragraphs.
	about    string
	examples []example
	// settings names those that the verb takes as flags; "*" stands for all, "kafka.*" for a section.
	settings []string
	// anyConfig verbs run although the configuration is wrong, and find the errors in call.ConfigErr.
	anyConfig bool
	// setup declares the verb's own flags and returns what runs it once they are parsed.
	setup func(fs *flag.FlagSet) action
	// subverbs are verbs of two words, the first of them this one's name. They have flags and a help of their own.
	subverbs []verb
}

// example is one command line of the help, with what it does.
type example struct {
	does, line string
}

// action runs a verb until done or ctx ends.
type action func(ctx context.Context, c *call) error

// call is one run of a verb.
type call struct {
	// Config is valid, unless ConfigErr says otherwise.
	Config *Config
	// Settings knows the origin of each setting. It is nil if the configuration file could not be read.
	Settings *config.Settings
	// ConfigErr is set for verbs with anyConfig only.
	ConfigErr error
	// Args are the positional arguments.
	Args []string
	// JSON tells that the output is for a program.
	JSON bool

	In  io.Reader
	Out *terminal
	Err *terminal

	environ []string
}

// groups are the headings of the help, in order.
var groups = []string{groupStart, groupDocuments, groupQuestions, groupGenerations, groupCare}

const (
	groupStart       = "Start here"
	groupDocuments   = "Documents in"
	groupQuestions   = "Answers out"
	groupGenerations = "Another chunker or model, without downtime"
	groupCare        = "Looking after it"
)

// verbs is the whole command line.
func verbs() []verb {
	return []verb{
		upVerb(),
		serveVerb(),
		indexVerb(),
		putVerb(),
		rmVerb(),
		importVerb(),
		queryVerb(),
		evalVerb(),
		generationsVerb(),
		planVerb(),
		replayVerb(),
		sweepVerb(),
		promoteVerb(),
		rollbackVerb(),
		dropVerb(),
		exportVerb(),
		verifyVerb(),
		dlqVerb(),
		spendingVerb(),
		doctorVerb(),
		benchVerb(),
		mockProviderVerb(),
		configVerb(),
		versionVerb(),
	}
}

// clientSettings are the settings of every verb that talks to a running liverag.
var clientSettings = []string{"server", "data", "listen", "config"}

// usageError is a command line that can't be meant.
type usageError struct {
	detail, hint string
}

func (e *usageError) Error() string { return e.detail }

// hinted is a failure with what to do next.
type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string { return e.err.Error() }
func (e *hinted) Unwrap() error { return e.err }

// withHint adds what to do next to a failure.
func withHint(err error, hint string) error { return &hinted{err, hint} }

// run is main without the process.
func run(ctx context.Context, args, environ []string, in io.Reader, out, errOut io.Writer) int {
	stdout, stderr := newTerminal(out, environ), newTerminal(errOut, environ)
	all := verbs()
	if len(args) == 0 {
		printHelp(stderr, all)
		return exitUsage
	}
	name, rest := args[0], args[1:]
	switch name {
	case "-h", "-help", "--help", "help":
		if len(rest) == 0 {
			printHelp(stdout, all)
			return exitDone
		}
		name, rest = rest[0], append(slices.Clone(rest[1:]), "--help")
	case "-version", "--version":
		name = "version"
	}
	i := slices.IndexFunc(all, func(v verb) bool { return v.name == name })
	if i < 0 {
		return report(stderr, "", slices.Contains(rest, "--json"), unknownVerb(all, name))
	}
	v := &all[i]
	if len(rest) > 0 {
		if i := slices.IndexFunc(v.subverbs, func(s verb) bool { return s.name == name+" "+rest[0] }); i >= 0 {
			v, rest = &v.subverbs[i], rest[1:]
		}
	}
	fs := flag.NewFlagSet(v.name, flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "print JSON")
	act := v.setup(fs)
	line, err := parseArgs(v, fs, rest)
	if err != nil {
		return report(stderr, v.name, slices.Contains(rest, "--json"), err)
	}
	if line.help {
		printVerbHelp(stdout, v, fs)
		return exitDone
	}
	c := &call{Args: line.positional, JSON: *asJSON, In: in, Out: stdout, Err: stderr, environ: environ}
	c.Config, c.Settings, c.ConfigErr = loadConfig(environ, line.settings)
	if c.ConfigErr != nil && !v.anyConfig {
		return report(stderr, v.name, c.JSON, &usageError{c.ConfigErr.Error(), "`liverag help config` says how settings are spelled"})
	}
	err = act(ctx, c)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	return report(stderr, v.name, c.JSON, err)
}

func unknownVerb(all []verb, name string) error {
	if strings.HasPrefix(name, "-") {
		return &usageError{fmt.Sprintf("%s is no flag here: the verb comes first, its flags after it", name), "`liverag --help` lists the verbs"}
	}
	names := []string{"help"}
	for _, v := range all {
		names = append(names, v.name)
	}
	hint := "`liverag --help` lists the verbs"
	if near := config.Nearest(name, names); near != "" {
		hint = fmt.Sprintf("did you mean `liverag %s`? %s", near, hint)
	}
	return &usageError{fmt.Sprintf("there is no verb %q", name), hint}
}

// report prints an error and returns the exit code.
func report(stderr *terminal, verb string, asJSON bool, err error) int {
	if err == nil {
		return exitDone
	}
	code, hint := exitFailed, ""
	var usage *usageError
	var h *hinted
	switch {
	case errors.As(err, &usage):
		code, hint = exitUsage, usage.hint
		if hint == "" {
			hint = fmt.Sprintf("`liverag help %s` shows how it is used", verb)
		}
	case errors.As(err, &h):
		hint = h.hint
	}
	if asJSON {
		problem := map[string]string{"error": err.Error(), "hint": hint}
		if p := (*apiError)(nil); errors.As(err, &p) {
			problem["code"] = p.Code
		}
		json.NewEncoder(stderr).Encode(problem)
		return code
	}
	prefix := "liverag"
	if verb != "" {
		prefix += " " + verb
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		stderr.Printf("%s: %s\n", stderr.bad(prefix), line)
	}
	if hint != "" {
		stderr.Printf("  %s\n", hint)
	}
	return code
}

// commandLine is what follows the verb.
type commandLine struct {
	positional []string
	settings   []config.FlagValue
	help       bool
}

// parseArgs reads flags wherever they stand: before, between and after the positional arguments. After -- everything is positional.
func parseArgs(v *verb, fs *flag.FlagSet, args []string) (commandLine, error) {
	var line commandLine
	allowed := settingsOf(v)
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			line.positional = append(line.positional, args...)
			break
		}
		if arg == "-" || !strings.HasPrefix(arg, "-") {
			line.positional = append(line.positional, arg)
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
		if name == "h" || name == "help" {
			line.help = true
			return line, nil
		}
		own := fs.Lookup(name)
		i := slices.IndexFunc(allowed, func(s config.Setting) bool { return s.Flag == name })
		if own == nil && i < 0 {
			return line, unknownFlag(v, fs, allowed, name)
		}
		isBool := i >= 0 && allowed[i].IsBool()
		if own != nil {
			b, ok := own.Value.(interface{ IsBoolFlag() bool })
			isBool = ok && b.IsBoolFlag()
		}
		switch {
		case hasValue:
		case isBool:
			value = "true"
		case len(args) == 0:
			return line, &usageError{detail: fmt.Sprintf("--%s needs a value", name)}
		default:
			value, args = args[0], args[1:]
		}
		if own == nil {
			line.settings = append(line.settings, config.FlagValue{Name: name, Value: value})
		} else if err := fs.Set(name, value); err != nil {
			return line, &usageError{detail: fmt.Sprintf("--%s: %v", name, flagProblem(own, value, err))}
		}
	}
	return line, nil
}

// flagProblem says in our words what is wrong with a flag's value, where package flag only says "parse error".
func flagProblem(f *flag.Flag, value string, err error) error {
	if err.Error() != "parse error" {
		return err
	}
	wants := map[string]string{"duration": "a duration with a unit, like 250ms, 2s or 1m30s", "int": "a whole number", "float": "a number", "": "true or false"}
	kind, _ := flag.UnquoteUsage(&flag.Flag{Value: f.Value})
	if want, ok := wants[kind]; ok {
		return fmt.Errorf("%q is not %s", value, want)
	}
	return fmt.Errorf("%q can't be read", value)
}

func unknownFlag(v *verb, fs *flag.FlagSet, allowed []config.Setting, name string) error {
	var known []string
	fs.VisitAll(func(f *flag.Flag) { known = append(known, f.Name) })
	for _, s := range allowed {
		if s.Flag != "" {
			known = append(known, s.Flag)
		}
	}
	for _, s := range config.Describe(defaultConfig(), envPrefix) {
		switch {
		case s.Secret && s.Name == name:
			return &usageError{
				detail: fmt.Sprintf("--%s is no flag: arguments can be seen by everybody on the machine, so a secret never is one", name),
				hint:   fmt.Sprintf("set %s in %s, or %s in the environment", s.Name, defaultFile, s.Env),
			}
		case s.Flag == name:
			return &usageError{detail: fmt.Sprintf("--%s is a setting that `liverag %s` does not use", name, v.name)}
		}
	}
	e := &usageError{detail: fmt.Sprintf("there is no flag --%s", name)}
	if near := config.Nearest(name, known); near != "" {
		e.hint = fmt.Sprintf("did you mean --%s? `liverag help %s` lists the flags", near, v.name)
	}
	return e
}

// settingsOf lists the settings that the verb takes as flags.
func settingsOf(v *verb) []config.Setting {
	var out []config.Setting
	for _, s := range config.Describe(defaultConfig(), envPrefix) {
		if slices.ContainsFunc(v.settings, func(pattern string) bool {
			section, all := strings.CutSuffix(pattern, "*")
			return pattern == s.Name || all && strings.HasPrefix(s.Name, section)
		}) {
			out = append(out, s)
		}
	}
	return out
}
