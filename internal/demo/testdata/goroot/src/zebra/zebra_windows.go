package zebra

// OnWindows is not on the documented system.
func OnWindows() {}
