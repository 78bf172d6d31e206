package main

import (
	"flag"
	"fmt"
	"strings"

	"github.com/liverag/liverag/internal/config"
)

func printHelp(t *terminal, all []verb) {
	t.Printf(`liverag keeps a search index of changing documents fresh. Change a document, and moments later every
answer shows it; change the chunker or the model, and the log is replayed into a new index while the old
one goes on answering. One program, nothing else to install.

%s
  liverag up --demo

%s
  liverag VERB [flags] [arguments]

`, t.bold("The first command, with a corpus to try it on:"), t.bold("Usage:"))
	width := 0
	for _, v := range all {
		width = max(width, len(v.name))
	}
	for _, group := range groups {
		var lines []string
		for _, v := range all {
			if v.group == group {
				lines = append(lines, fmt.Sprintf("  %-*s  %s", width, v.name, v.summary))
			}
		}
		if len(lines) > 0 {
			t.Printf("%s\n%s\n\n", t.bold(group), strings.Join(lines, "\n"))
		}
	}
	t.Printf(`liverag help VERB shows its flags and examples. Every verb takes --json.
Settings come from liverag.yaml, the environment (LIVERAG_…) and flags: liverag config shows them all.
`)
}

func printVerbHelp(t *terminal, v *verb, fs *flag.FlagSet) {
	t.Printf("liverag %s: %s\n\n%s\n  liverag %s [flags]", v.name, v.summary, t.bold("Usage:"), v.name)
	if v.args != "" {
		t.Printf(" %s", v.args)
	}
	t.Printf("\n")
	for paragraph := range strings.SplitSeq(strings.TrimSpace(v.about), "\n\n") {
		t.Printf("\n")
		for _, line := range wrap(paragraph, t.Width) {
			t.Printf("%s\n", line)
		}
	}
	t.Printf("\n%s\n", t.bold("Examples:"))
	for i, e := range v.examples {
		if i > 0 {
			t.Printf("\n")
		}
		t.Printf("  %s\n  %s\n", t.dim("# "+e.does), e.line)
	}
	if len(v.subverbs) > 0 {
		width := 0
		for _, sub := range v.subverbs {
			width = max(width, len(sub.name))
		}
		t.Printf("\n%s\n", t.bold("With flags and a help of their own:"))
		for _, sub := range v.subverbs {
			t.Printf("  %-*s  %s\n", width, sub.name, sub.summary)
		}
	}
	t.Printf("\n%s\n", t.bold("Flags:"))
	fs.VisitAll(func(f *flag.Flag) {
		name, usage := flag.UnquoteUsage(f)
		if name == "int" {
			name = "n"
		}
		name = strings.ToUpper(name)
		switch f.DefValue {
		case "", "false", "0", "0s":
		default:
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		printFlag(t, f.Name, name, usage)
	})
	settings := settingsOf(v)
	if len(settings) == 0 {
		return
	}
	t.Printf("\n%s\n", t.bold("Settings, also to be had from liverag.yaml and the environment:"))
	for _, s := range settings {
		if s.Flag == "" {
			continue
		}
		printFlag(t, s.Flag, placeholder(&s), describeSetting(&s))
	}
}

func printFlag(t *terminal, name, value, usage string) {
	dashes := "--"
	if len(name) == 1 {
		dashes = "-"
	}
	head := "  " + dashes + name
	if value != "" {
		head += " " + value
	}
	const column = 26
	lines := wrap(usage, t.Width-column)
	if len(head) <= column-2 && len(lines) > 0 {
		t.Printf("%-*s%s\n", column, head, lines[0])
		lines = lines[1:]
	} else {
		t.Printf("%s\n", head)
	}
	for _, line := range lines {
		t.Printf("%*s%s\n", column, "", line)
	}
}

// placeholder is what stands for a setting's value in the help.
func placeholder(s *config.Setting) string {
	switch s.Type() {
	case "true or false":
		return ""
	case "whole number", "number":
		return "N"
	case "duration":
		return "DURATION"
	case "size":
		return "SIZE"
	case "list":
		return "LIST"
	case "mapping":
		return "NAME=VALUE"
	}
	return "VALUE"
}

// describeSetting is a setting's text with what it allows and its default.
func describeSetting(s *config.Setting) string {
	text := s.Doc
	if len(s.OneOf) > 0 {
		text += " One of " + strings.Join(s.OneOf, ", ") + "."
	}
	if bounds := s.Bounds(); bounds != "" {
		text += " " + strings.ToUpper(bounds[:1]) + bounds[1:] + "."
	}
	if s.Default != "" && s.Default != "false" {
		text += fmt.Sprintf(" (default %s)", s.Default)
	}
	return text
}
