//go:build race

package htmltext

// The race detector makes the parser some ten times slower; there is one goroutine in most tests, and nothing for it to find.
func init() { scale = 10 }
