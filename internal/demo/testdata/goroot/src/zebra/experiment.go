//go:build goexperiment.stripes || cgo

package zebra

// Experiment is not there by default.
func Experiment() {}
