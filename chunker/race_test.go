//go:build race

package chunker

// The race detector makes the tokenizer some ten times slower; there is one goroutine in most tests, and nothing for it to find.
func init() { scale = 10 }
