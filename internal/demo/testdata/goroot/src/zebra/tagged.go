//go:build linux && go1.26 && !go1.27

package zebra

// Tagged is for this system and this version.
func Tagged() {}
