// Package fmt prints.
package fmt

// Printer prints. It has many settings. Most of them may stay zero.
type Printer struct {
	// Setting00 decides matter number 0 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting00 func(page int, width float64) error

	// Setting01 decides matter number 1 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting01 func(page int, width float64) error

	// Setting02 decides matter number 2 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting02 func(page int, width float64) error

	// Setting03 decides matter number 3 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting03 func(page int, width float64) error

	// Setting04 decides matter number 4 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting04 func(page int, width float64) error

	// Setting05 decides matter number 5 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting05 func(page int, width float64) error

	// Setting06 decides matter number 6 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting06 func(page int, width float64) error

	// Setting07 decides matter number 7 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting07 func(page int, width float64) error

	// Setting08 decides matter number 8 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting08 func(page int, width float64) error

	// Setting09 decides matter number 9 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting09 func(page int, width float64) error

	// Setting10 decides matter number 10 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting10 func(page int, width float64) error

	// Setting11 decides matter number 11 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting11 func(page int, width float64) error

	// Setting12 decides matter number 12 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting12 func(page int, width float64) error

	// Setting13 decides matter number 13 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting13 func(page int, width float64) error

	// Setting14 decides matter number 14 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting14 func(page int, width float64) error

	// Setting15 decides matter number 15 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting15 func(page int, width float64) error

	// Setting16 decides matter number 16 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting16 func(page int, width float64) error

	// Setting17 decides matter number 17 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting17 func(page int, width float64) error

	// Setting18 decides matter number 18 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting18 func(page int, width float64) error

	// Setting19 decides matter number 19 of printing: leave it at zero unless the page comes out
	// too narrow, too wide, or upside down, and then try a few values until it looks right.
	Setting19 func(page int, width float64) error
}

// Print prints the page.
func (p *Printer) Print(page int) error { return nil }

// Method00 is the way to do matter number 0 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method00(page int) {}

// Method01 is the way to do matter number 1 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method01(page int) {}

// Method02 is the way to do matter number 2 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method02(page int) {}

// Method03 is the way to do matter number 3 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method03(page int) {}

// Method04 is the way to do matter number 4 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method04(page int) {}

// Method05 is the way to do matter number 5 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method05(page int) {}

// Method06 is the way to do matter number 6 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method06(page int) {}

// Method07 is the way to do matter number 7 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method07(page int) {}

// Method08 is the way to do matter number 8 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method08(page int) {}

// Method09 is the way to do matter number 9 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method09(page int) {}

// Method10 is the way to do matter number 10 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method10(page int) {}

// Method11 is the way to do matter number 11 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method11(page int) {}

// Method12 is the way to do matter number 12 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method12(page int) {}

// Method13 is the way to do matter number 13 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method13(page int) {}

// Method14 is the way to do matter number 14 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method14(page int) {}

// Method15 is the way to do matter number 15 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method15(page int) {}

// Method16 is the way to do matter number 16 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method16(page int) {}

// Method17 is the way to do matter number 17 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method17(page int) {}

// Method18 is the way to do matter number 18 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method18(page int) {}

// Method19 is the way to do matter number 19 by hand, for callers that can't or won't set the setting of that
// number, as when several pages of one document need different treatment.
func (p Printer) Method19(page int) {}

// Small is small.
type Small int
