package evals

import "slices"

// Span is a range of a source's text, [Start, End). The unit is the caller's, the same everywhere; to compare with
// Chroma's published figures it must be code points.
type Span struct {
	Source     string
	Start, End int
}

// ExcerptQuestion is a question whose answer is known as excerpts of one source.
type ExcerptQuestion struct {
	// Excerpts are all of the same source. Overlapping ones each count fully in the denominator of recall.
	Excerpts []Span
}

// ChunkingScore tells how well chunks fit the excerpts of one question, by the definitions of Chroma's evaluation of
// chunking (Smith and Troynikov 2024), to the letter of its published code.
type ChunkingScore struct {
	// Recall is the excerpts' text that was retrieved, each place once, by the sum of the excerpts' lengths.
	Recall float64 `json:"recall"`
	// Precision is the same text by the sum of the retrieved chunks' lengths, those of other sources included.
	Precision float64 `json:"precision"`
	// PrecisionOmega is what precision would be if every chunk with a part of an excerpt, and no other, were retrieved.
	// It needs no retrieval: it is a figure of the chunker alone.
	PrecisionOmega float64 `json:"precision_omega"`
	// IoU is the same text as in Recall by the sum of the retrieved chunks' lengths and the excerpt text not retrieved.
	IoU float64 `json:"iou"`
	// Containing is how many chunks hold a part of an excerpt. One that only touches an excerpt counts too.
	Containing int `json:"containing"`
}

// ScoreChunking scores one question: chunks are all chunks of all sources, retrieved the indexes of those retrieved.
func ScoreChunking(q ExcerptQuestion, chunks []Span, retrieved []int) ChunkingScore {
	var score ChunkingScore
	var wanted int
	for _, e := range q.Excerpts {
		wanted += e.End - e.Start
	}

	// What perfect retrieval would give.
	uncovered := slices.Clone(q.Excerpts)
	var covered, containing []Span
	for _, chunk := range chunks {
		parts := intersections(chunk, q.Excerpts)
		if len(parts) == 0 {
			continue
		}
		score.Containing++
		covered = append(covered, parts...)
		containing = append(containing, chunk)
		uncovered = subtract(uncovered, parts)
	}
	if text := length(union(covered)); text > 0 {
		score.PrecisionOmega = float64(text) / float64(length(union(append(containing, uncovered...))))
	}

	// What the retrieved chunks give.
	uncovered = slices.Clone(q.Excerpts)
	covered = nil
	var read int
	for _, i := range retrieved {
		chunk := chunks[i]
		read += chunk.End - chunk.Start
		parts := intersections(chunk, q.Excerpts)
		covered = append(covered, parts...)
		uncovered = subtract(uncovered, parts)
	}
	text := length(union(covered))
	if text == 0 {
		return score
	}
	score.Recall = float64(text) / float64(wanted)
	score.Precision = float64(text) / float64(read)
	score.IoU = float64(text) / float64(read+length(uncovered))
	return score
}

// intersections are the parts of excerpts that a chunk of the same source holds. Empty ones, where the two only touch,
// are among them, as in the published code.
func intersections(chunk Span, excerpts []Span) []Span {
	var parts []Span
	for _, e := range excerpts {
		start, end := max(chunk.Start, e.Start), min(chunk.End, e.End)
		if chunk.Source == e.Source && start <= end {
			parts = append(parts, Span{e.Source, start, end})
		}
	}
	return parts
}

// union merges spans of one source that overlap or touch.
func union(spans []Span) []Span {
	slices.SortFunc(spans, func(a, b Span) int { return a.Start - b.Start })
	var merged []Span
	for _, s := range spans {
		if n := len(merged); n > 0 && s.Start <= merged[n-1].End {
			merged[n-1].End = max(merged[n-1].End, s.End)
			continue
		}
		merged = append(merged, s)
	}
	return merged
}

// subtract takes parts out of spans of the same source.
func subtract(spans, parts []Span) []Span {
	for _, part := range parts {
		var left []Span
		for _, s := range spans {
			if part.End <= s.Start || part.Start >= s.End {
				left = append(left, s)
				continue
			}
			if s.Start < part.Start {
				left = append(left, Span{s.Source, s.Start, part.Start})
			}
			if part.End < s.End {
				left = append(left, Span{s.Source, part.End, s.End})
			}
		}
		spans = left
	}
	return spans
}

func length(spans []Span) int {
	var sum int
	for _, s := range spans {
		sum += s.End - s.Start
	}
	return sum
}
