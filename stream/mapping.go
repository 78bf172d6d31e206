package stream

// Mapping reads values of another shape. Its zero value maps nothing.
type Mapping struct {
	ID *string
}

func (c *Change) decodeMapped(m *Mapping, maxBytes int) *Problem { return nil }
