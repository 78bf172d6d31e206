//go:build race

package bpe

// The race detector makes the merging loops some ten times slower; there is one goroutine in most tests, and nothing for it to find.
func init() { scale = 10 }
