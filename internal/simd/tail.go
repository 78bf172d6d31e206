//go:build amd64 || arm64

package simd

// addTails adds the components after the last whole block of 16, which the kernels without masks leave out.
func addTails(out []int32, query, codes []int8) {
	dim := len(query)
	from := dim &^ 15
	if from == dim {
		return
	}
	for i := range out {
		out[i] += dotI8(query[from:], codes[i*dim+from:(i+1)*dim])
	}
}

// addTailsAt is addTails for chosen rows.
func addTailsAt(out []int32, query, codes []int8, rows []uint32) {
	dim := len(query)
	from := dim &^ 15
	if from == dim {
		return
	}
	for i, r := range rows {
		out[i] += dotI8(query[from:], codes[int(r)*dim+from:(int(r)+1)*dim])
	}
}
