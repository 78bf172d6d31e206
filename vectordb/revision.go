package vectordb

import (
	"cmp"
	"math"
	"slices"
)

// ReadableBy tells whether a caller of the tenant, with these principals, may see the document: the tenants are equal, and there is no access list
// in force or one of the principals is on it.
func (r *Revision) ReadableBy(tenant string, principals []string) bool {
	if r.Tenant != tenant {
		return false
	}
	readers := r.Readers()
	if readers == nil {
		return true
	}
	for _, p := range principals {
		if slices.Contains(readers, p) {
			return true
		}
	}
	return false
}

// Check tells whether a store of vectors of dim may take the revision. Errors wrap ErrInvalid.
//
// It wants a key, versions that are not negative, entries that are spans of the text in the order of Start, then End, vectors of dim finite numbers,
// and metadata of string, finite float64, bool and []string. A deleted revision's content is not looked at: stores drop it.
func (r *Revision) Check(dim int) error {
	switch {
	case r.Key == "":
		return invalidf("revision without a key")
	case r.Version < 0 || r.Access.Version < 0:
		return invalidf("revision of %q: version %d, access version %d; versions start at 1", r.Key, r.Version, r.Access.Version)
	case r.Deleted || r.Version == 0:
		return nil
	}
	for i := range r.Entries {
		e := &r.Entries[i]
		if e.Start < 0 || e.End < e.Start || e.End > len(r.Text) {
			return invalidf("revision of %q: entry %d is [%d:%d) of a text of %d bytes", r.Key, i, e.Start, e.End, len(r.Text))
		}
		if i > 0 && cmp.Or(cmp.Compare(r.Entries[i-1].Start, e.Start), cmp.Compare(r.Entries[i-1].End, e.End)) > 0 {
			return invalidf("revision of %q: entry %d stands before entry %d in the text", r.Key, i, i-1)
		}
		if err := checkVector(e.Vector, dim); err != nil {
			return invalidf("revision of %q: entry %d: %v", r.Key, i, err)
		}
	}
	for name, v := range r.Metadata {
		switch v := v.(type) {
		case string, bool, []string:
		case float64:
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return invalidf("revision of %q: metadata %q is %v", r.Key, name, v)
			}
		default:
			return invalidf("revision of %q: metadata %q is a %T; it may be a string, float64, bool or []string", r.Key, name, v)
		}
	}
	return nil
}

// Check tells whether a generation of vectors of dim can answer the query. Errors wrap ErrInvalid.
// A query without any leg is answered with nothing; one with both legs needs Fuse.
func (q *Query) Check(dim int) error {
	if q.Vector != nil {
		if err := checkVector(q.Vector, dim); err != nil {
			return invalidf("query: %v", err)
		}
		if q.Text != "" && q.Fuse == nil {
			return invalidf("query: two legs and no Fuse to merge them")
		}
	}
	if q.Depth < 0 {
		return invalidf("query: depth %d", q.Depth)
	}
	return q.Filter.Check()
}

func checkVector(v []float32, dim int) error {
	if len(v) != dim {
		return invalidf("the vector has %d dimensions, the generation %d", len(v), dim)
	}
	for i, x := range v {
		if x != x || x > math.MaxFloat32 || x < -math.MaxFloat32 {
			return invalidf("the vector has %v at %d", x, i)
		}
	}
	return nil
}

// CheckName tells whether a generation may have the name: [a-z][a-z0-9_]{0,62}. Errors wrap ErrInvalid.
func CheckName(name string) error {
	ok := len(name) >= 1 && len(name) <= 63 && name[0] >= 'a' && name[0] <= 'z'
	for i := range len(name) {
		c := name[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_')
	}
	if !ok {
		return invalidf("generation %s: a name is [a-z][a-z0-9_]{0,62}", pathName(name))
	}
	return nil
}

// Check tells whether a store may create the generation. Errors wrap ErrInvalid.
func (g *Generation) Check() error {
	if err := CheckName(g.Name); err != nil {
		return err
	}
	if g.Dim < 1 {
		return invalidf("generation %s: dimension %d", g.Name, g.Dim)
	}
	return nil
}
