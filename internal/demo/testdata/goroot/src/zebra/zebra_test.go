package zebra

import "testing"

// TestExported is a test.
func TestExported(t *testing.T) {}
