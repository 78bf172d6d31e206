package main

import (
	"context"
	"flag"
	"strings"

	"github.com/liverag/liverag/internal/config"
)

func configVerb() verb {
	return verb{
		name: "config", group: groupCare, args: "[SETTING…]",
		summary: "Show every setting, its value and where that came from",
		about: `Shows the settings that a verb called here and now with the same flags would use. Later ones win: the default, the file (liverag.yaml, or --config), the environment, flags. Secrets are masked; they come from the file or the environment, never from a flag.

A setting like kafka.sasl.user is "kafka: {sasl: {user: …}}" in the file, LIVERAG_KAFKA_SASL_USER in the environment and --kafka.sasl.user as a flag. Arguments choose settings by name or by section.`,
		examples: []example{
			{"what is in force here, and why", "liverag config"},
			{"only what has to do with Kafka", "liverag config kafka"},
			{"check a file before it is used", "liverag config --config staging.yaml"},
		},
		settings: []string{"*"},
		setup: func(fs *flag.FlagSet) action {
			changed := fs.Bool("changed", false, "show only what is not the default")
			return func(_ context.Context, c *call) error { return runConfig(c, *changed) }
		},
	}
}

// shownSetting is one line of `liverag config --json`.
type shownSetting struct {
	Name    string `json:"name"`
	Value   any    `json:"value"`
	Origin  string `json:"origin"`
	Default string `json:"default"`
	Env     string `json:"env"`
	Flag    string `json:"flag,omitempty"`
	Doc     string `json:"doc"`
}

func runConfig(c *call, changedOnly bool) error {
	met := map[string]bool{}
	wanted := func(name string) bool {
		if len(c.Args) == 0 {
			return true
		}
		for _, arg := range c.Args {
			if name == arg || strings.HasPrefix(name, arg+".") {
				met[arg] = true
				return true
			}
		}
		return false
	}
	shown := []shownSetting{}
	rows := [][]string{}
	for _, s := range c.Settings.All() {
		origin := c.Settings.Origin(s.Name)
		if !wanted(s.Name) || changedOnly && origin.IsDefault() {
			continue
		}
		one := shownSetting{Name: s.Name, Value: c.Settings.Value(s.Name), Origin: origin.String(), Default: s.Default, Env: s.Env, Doc: s.Doc}
		if s.Flag != "" {
			one.Flag = "--" + s.Flag
		}
		shown = append(shown, one)
		value := plain(c.Settings.Show(s.Name))
		if value == "" {
			value = `""`
		}
		rows = append(rows, []string{s.Name, value, one.Origin})
	}
	for _, arg := range c.Args {
		if !met[arg] {
			return unknownSetting(c, arg)
		}
	}
	if c.JSON {
		return c.Out.JSON(map[string]any{"file": c.Config.File, "settings": shown})
	}
	c.Out.table([]string{"SETTING", "VALUE", "FROM"}, rows)
	return nil
}

func unknownSetting(c *call, name string) error {
	var names []string
	for _, s := range c.Settings.All() {
		names = append(names, s.Name)
	}
	e := &usageError{detail: "there is no setting " + name}
	if near := config.Nearest(name, names); near != "" {
		e.hint = "did you mean " + near + "?"
	}
	return e
}
