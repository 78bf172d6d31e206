package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
)

func versionVerb() verb {
	return verb{
		name: "version", group: groupCare,
		summary:   "Print the version, the commit and the Go release it was built with",
		about:     "Prints what this binary was built from. Please put it into a bug report, with the output of `liverag doctor`.",
		examples:  []example{{"which version is this?", "liverag version"}, {"the commit alone", "liverag version --json | jq -r .commit"}},
		anyConfig: true,
		setup:     func(*flag.FlagSet) action { return runVersion },
	}
}

// build is what a binary was built from.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
}

// readBuild asks the binary itself; one built outside a repository knows no commit.
func readBuild() build {
	b := build{Version: "(devel)", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (b build) String() string {
	text := "liverag " + b.Version
	if b.Commit != "" {
		text += " (" + b.Commit[:min(12, len(b.Commit))]
		if b.Modified {
			text += ", modified"
		}
		text += ")"
	}
	return fmt.Sprintf("%s, %s %s/%s", text, b.Go, b.OS, b.Arch)
}

func runVersion(_ context.Context, c *call) error {
	if len(c.Args) > 0 {
		return &usageError{detail: "version takes no arguments"}
	}
	b := readBuild()
	if c.JSON {
		return c.Out.JSON(b)
	}
	c.Out.Printf("%s\n", b)
	return nil
}
