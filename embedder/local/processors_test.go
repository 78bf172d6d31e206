package local

import (
	"runtime"
	"testing"
)

// TestSpare: there is one more thread of Go code, once, and the models don't take it.
func TestSpare(t *testing.T) {
	models := Processors()
	Spare()
	Spare()
	if all := runtime.GOMAXPROCS(0); all != models+1 || Processors() != models {
		t.Errorf("%d threads, of which the models take %d; they took %d", all, Processors(), models)
	}
}
