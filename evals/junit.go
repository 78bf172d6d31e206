package evals

import (
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name      string      `xml:"name,attr"`
	Tests     int         `xml:"tests,attr"`
	Failures  int         `xml:"failures,attr"`
	Errors    int         `xml:"errors,attr"`
	Time      string      `xml:"time,attr"`
	Timestamp string      `xml:"timestamp,attr"`
	Cases     []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Failure *junitFailure `xml:"failure,omitempty"`
	Output  string        `xml:"system-out,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes a result as JUnit XML, for a CI's page of tests: a test case for each figure, which fails where its
// change says that it is worse, and one for each gate.
func WriteJUnit(w io.Writer, r *Result, changes []Change, gates []Gate) error {
	suite := junitSuite{
		Name: strings.TrimSpace("liverag eval " + string(r.Kind) + " " + r.Set.Name), Time: fmt.Sprintf("%.3f", r.Took.Seconds()),
		Timestamp: r.Started.UTC().Format(time.RFC3339),
	}
	class := "eval." + string(r.Kind)
	add := func(c junitCase) {
		c.Class = class
		suite.Tests++
		if c.Failure != nil {
			suite.Failures++
		}
		suite.Cases = append(suite.Cases, c)
	}
	of := func(name string) int {
		return slices.IndexFunc(changes, func(c Change) bool { return c.Figure == name })
	}
	compared := func(c *junitCase, change Change) {
		c.Output = change.String()
		if change.Worse {
			c.Failure = &junitFailure{Message: "worse than the baseline: " + change.String(), Type: "worse", Text: change.String()}
		}
	}
	for _, f := range r.Figures {
		c := junitCase{Name: f.Name, Output: f.Name + " " + f.String()}
		if i := of(f.Name); i >= 0 {
			compared(&c, changes[i])
		}
		add(c)
	}
	for _, change := range changes {
		if change.Gone {
			c := junitCase{Name: change.Figure}
			compared(&c, change)
			add(c)
		}
	}
	for _, g := range gates {
		c := junitCase{Name: g.String()}
		if !g.Passed {
			c.Failure = &junitFailure{Message: strings.TrimSuffix(g.String()+" does not hold: "+g.Why, ": "), Type: "gate", Text: g.Why}
		}
		add(c)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(junitSuites{Tests: suite.Tests, Failures: suite.Failures, Suites: []junitSuite{suite}}); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
