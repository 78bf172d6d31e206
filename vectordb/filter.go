package vectordb

// Op is a filter's operator.
type Op uint8

const (
	And    Op = iota + 1 // all of Sub
	Or                   // any of Sub
	Not                  // none of Sub
	Eq                   // Field equals Value, or holds it if the field is an array
	Ne                   // the opposite of Eq, also true when the field is absent
	Gt                   // numbers with numbers, strings with strings, times with times; false for anything else
	Gte                  //
	Lt                   //
	Lte                  //
	In                   // Eq with any of Values
	Nin                  // the opposite of In
	Exists               // Field is present (Value true) or absent (Value false)
)

// Filter is a condition on a document. It is a tree of Ops.
type Filter struct {
	Op Op
	// Field is a metadata name, or @id, @url, @content_type, @updated_at.
	Field string
	// Value is string, float64, bool or (for @updated_at) time.Time.
	Value  any
	Values []any
	Sub    []*Filter

	set map[any]struct{} // of Values, where there are many; see index
}
