package evals

import (
	"strings"
	"testing"
)

func TestOverlap(t *testing.T) {
	list := func(text string) []string { return strings.Fields(text) }
	for _, c := range []struct {
		a, b         string
		k            int
		jaccard, rbo float64
	}{
		{"a b c", "a b c", 0, 1, 1},
		{"", "", 10, 1, 1},
		{"a b", "", 10, 0, 0},
		{"a b c", "d e f", 0, 0, 0},
		{"a b c d", "a b x y", 2, 1, 1},
		// Agreement at depths 1 to 3 is 0, 1, 2/3: 0.1/0.9 · (0 + 0.81 + 2/3 · 0.729) + 2/3 · 0.729.
		{"a b c", "b a d", 0, .5, .63},
		// Uneven: X is 1, 1, 2, 2, and s = 2, l = 4; by hand after the paper's equation 32.
		{"a b", "a x b y", 0, .5, .1/.9*(.9+.5*.81+2./3*.729+.5*.6561+1*1./6*.729+1*2./8*.6561) + (1./4+1./2)*.6561},
	} {
		checkNear(t, "jaccard of "+c.a+" and "+c.b, Jaccard(list(c.a), list(c.b), c.k), c.jaccard)
		checkNear(t, "rbo of "+c.a+" and "+c.b, RankBiasedOverlap(list(c.a), list(c.b), c.k, Persistence), c.rbo)
		checkNear(t, "rbo of "+c.b+" and "+c.a, RankBiasedOverlap(list(c.b), list(c.a), c.k, Persistence), c.rbo)
	}
	// A difference at the top weighs more than the same one below.
	top := RankBiasedOverlap(list("x b c d e"), list("a b c d e"), 0, Persistence)
	bottom := RankBiasedOverlap(list("a b c d x"), list("a b c d e"), 0, Persistence)
	if top >= bottom {
		t.Errorf("changed at the top %v, at the bottom %v", top, bottom)
	}
}
