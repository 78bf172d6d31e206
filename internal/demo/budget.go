package demo

// Budget divides a corpus into a first part that fits a budget, for those who can't wait until all of it is embedded, and the rest. Both
// keep the corpus' order.
//
// The first part is made of whole packages: a package whose types are elsewhere would answer half of what it is asked. Those that
// [Questions] asks about are taken before the others, and each group in the corpus' order, most used first. What does not fit
// any more is left to the rest, and something smaller after it may still fit. Guides, which have no package, stand for themselves.
//
// size is what a document takes of the budget, in the caller's unit: bytes, tokens, seconds of a model's time. It is never negative, and is
// asked once a document. A budget that not even one package fits has an empty first part.
func Budget(documents []Document, budget int, size func(Document) int) (first, rest []Document) {
	ids := make(map[string]bool, len(documents))
	sizes := make(map[string]int) // by package
	var packages []string         // in the corpus' order
	for _, d := range documents {
		p := packageIn(d)
		if _, ok := sizes[p]; !ok {
			packages = append(packages, p)
		}
		sizes[p] += size(d)
		ids[d.ID] = true
	}
	asked := make(map[string]bool)
	for _, q := range Questions(func(id string) bool { return ids[id] }) {
		for _, id := range q.Documents {
			asked[packageOf(id)] = true
		}
	}
	taken := make(map[string]bool)
	for _, wanted := range []bool{true, false} {
		for _, p := range packages {
			if asked[p] == wanted && sizes[p] <= budget {
				budget -= sizes[p]
				taken[p] = true
			}
		}
	}
	for _, d := range documents {
		if taken[packageIn(d)] {
			first = append(first, d)
		} else {
			rest = append(rest, d)
		}
	}
	return first, rest
}

// packageIn is the import path of the package that a document is about, or its own id.
func packageIn(d Document) string {
	if p, ok := d.Metadata["package"].(string); ok {
		return p
	}
	return d.ID
}
