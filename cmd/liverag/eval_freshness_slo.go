package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/liverag/liverag/evals"
	"github.com/liverag/liverag/internal/config"
)

var sloSyntax = regexp.MustCompile(`^([^\s<>=]+)\s*(>=|<=|==|=|>|<)\s*(\S+)$`)

// parseSLO reads what has to hold, such as "p99<2s,stale_rate@10=0", and adds what always has to unless the text says otherwise of the same figure. "="
// means: no worse than.
func parseSLO(text string, k int) ([]evals.Gate, error) {
	var gates []evals.Gate
	named := freshnessNames(k)
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		m := sloSyntax.FindStringSubmatch(part)
		if m == nil {
			return nil, &usageError{detail: fmt.Sprintf("--slo %q: write it like p99<2s", part)}
		}
		name := m[1]
		if _, ok := named[name]; !ok {
			for _, whole := range []string{"time_to_searchable." + name, name + "@" + strconv.Itoa(k)} {
				if _, ok := named[whole]; ok {
					name = whole
				}
			}
		}
		better, ok := named[name]
		if !ok {
			e := &usageError{detail: fmt.Sprintf("--slo %q: there is no figure %s", part, m[1])}
			var names []string
			for n := range named {
				names = append(names, n)
			}
			slices.Sort(names)
			e.hint = "there are " + strings.Join(names, ", ")
			if near := config.Nearest(m[1], names); near != "" {
				e.hint = fmt.Sprintf("did you mean %s?", near)
			}
			return nil, e
		}
		op := m[2]
		if op == "=" || op == "==" {
			if op = "<="; better == evals.Higher {
				op = ">="
			}
		}
		gate, err := evals.ParseGate(name + op + m[3])
		if err != nil {
			return nil, &usageError{detail: fmt.Sprintf("--slo %q: %s is neither a number nor a duration", part, m[3])}
		}
		gates = append(gates, gate)
	}
	for _, name := range []string{"never", "ghost_rate", "mixed_version_rate", "stale_rate@" + strconv.Itoa(k)} {
		if !slices.ContainsFunc(gates, func(g evals.Gate) bool { return g.Figure == name }) {
			gates = append(gates, evals.Gate{Figure: name, Op: "<=", Bound: 0})
		}
	}
	return gates, nil
}
