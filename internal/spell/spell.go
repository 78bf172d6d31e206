// Package spell writes figures as people read them.
package spell

import "strconv"

// Thousands spells a number with commas: 12,345.
func Thousands[N ~int | ~int32 | ~int64](n N) string {
	text := strconv.FormatInt(int64(n), 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
