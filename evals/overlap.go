package evals

import (
	"math"
	"slices"
)

// Jaccard is how many of two lists' first k (k = 0: all) are in both, by how many there are in either, whatever their order: 1 for the same, 0 for
// nothing in common. Two empty lists are the same. No list has anything twice.
func Jaccard(a, b []string, k int) float64 {
	a, b = first(a, k), first(b, k)
	common := 0
	for _, x := range a {
		if slices.Contains(b, x) {
			common++
		}
	}
	all := len(a) + len(b) - common
	if all == 0 {
		return 1
	}
	return float64(common) / float64(all)
}

// Persistence is the usual parameter of [RankBiasedOverlap]: the first ten ranks have 86 % of the weight.
const Persistence = .9

// RankBiasedOverlap tells how alike two rankings are, from 0 to 1, and the first ranks weigh most: a reader goes on from each rank to the next with the
// probability p, above 0 and below 1. After Webber, Moffat and Zobel (TOIS 2010), extrapolated from the first k (k = 0: all) to what was not seen;
// one list may be shorter. Two empty lists are the same, an empty one has nothing in common with another.
func RankBiasedOverlap(a, b []string, k int, p float64) float64 {
	short, long := first(a, k), first(b, k)
	if len(short) > len(long) {
		short, long = long, short
	}
	s, l := len(short), len(long)
	if l == 0 {
		return 1
	}
	if s == 0 {
		return 0
	}
	seen := make(map[string]bool, 2*l)
	var common, atShort, sum float64 // common is how many the first d have in common
	weight := 1.
	for d := 1; d <= l; d++ {
		weight *= p
		if x := long[d-1]; seen[x] {
			common++
		} else {
			seen[x] = true
		}
		if d <= s {
			if x := short[d-1]; seen[x] {
				common++
			} else {
				seen[x] = true
			}
			atShort = common
		}
		sum += common / float64(d) * weight
		if d > s { // what the shorter one might have had there
			sum += atShort * float64(d-s) / float64(s*d) * weight
		}
	}
	rbo := (1-p)/p*sum + ((common-atShort)/float64(l)+atShort/float64(s))*weight
	return math.Min(1, rbo)
}

func first(list []string, k int) []string {
	if k > 0 && len(list) > k {
		return list[:k]
	}
	return list
}
