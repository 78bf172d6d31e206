// Package zebra counts stripes.
//
// # Counting
//
// Stripes are counted from the neck:
//
//	n := zebra.Count("mare")
//
// The result is
//
//   - zero for a horse,
//   - an [Animal]'s own number else.
//
// -1 is never returned. See [fmt.Println] and [the manual].
//
// [the manual]: https://example.org/manual
package zebra

import "fmt"

// MAX_STRIPES is the most that were seen.
const MAX_STRIPES = 80

var hidden = fmt.Sprint

// ErrHorse is returned for a horse.
var ErrHorse = fmt.Errorf("zebra: this is a horse")

// Animal has stripes.
type Animal struct {
	// Name is what it is called.
	Name string
	age  int // unexported
}

// NewAnimal makes one.
func NewAnimal(name string) *Animal { return &Animal{Name: name} }

// Count counts the stripes.
func (a *Animal) Count() int { return 3 }

// Count counts the stripes of the named animal.
func Count(name string) (n int, err error) {
	return 0, ErrHorse
}

func private() {}
