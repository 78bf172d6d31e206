// Package builtin documents the language.
package builtin

// The len built-in function returns the length of v.
func len(v Type) int

// Type stands for any type.
type Type int
