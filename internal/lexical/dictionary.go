package lexical

import "hash/maphash"

// dictionary numbers terms from 0. It holds their bytes in one piece, so a million of them are three objects for the garbage collector,
// and a term costs its bytes and about 16 more.
type dictionary struct {
	slots []slot // a power of two, at most ¾ full, probed linearly
	ends  []uint32
	bytes []byte // of all terms, one after the other
}

// slot is empty if next is 0, otherwise it holds term next-1.
type slot struct{ hash, next uint32 }

var seedOfAll = maphash.MakeSeed()

func hashOf(term string) uint32 { return uint32(maphash.String(seedOfAll, term)) }

// size is how many terms there are.
func (d *dictionary) size() int { return len(d.ends) }

func (d *dictionary) term(id uint32) []byte {
	from := uint32(0)
	if id > 0 {
		from = d.ends[id-1]
	}
	return d.bytes[from:d.ends[id]]
}

// find returns a term's number.
func (d *dictionary) find(term string) (id uint32, ok bool) {
	if len(d.slots) == 0 {
		return 0, false
	}
	id, _, ok = d.probe(term, hashOf(term))
	return id, ok
}

// probe returns a term's number or the empty slot where it belongs.
func (d *dictionary) probe(term string, hash uint32) (id, at uint32, ok bool) {
	mask := uint32(len(d.slots) - 1)
	for at = hash & mask; ; at = (at + 1) & mask {
		s := d.slots[at]
		if s.next == 0 {
			return 0, at, false
		}
		if s.hash == hash && string(d.term(s.next-1)) == term {
			return s.next - 1, at, true
		}
	}
}

// number returns a term's number, a new one if it has none.
func (d *dictionary) number(term string) uint32 {
	if 4*len(d.ends) >= 3*len(d.slots) {
		d.grow()
	}
	hash := hashOf(term)
	id, at, ok := d.probe(term, hash)
	if ok {
		return id
	}
	d.bytes = append(d.bytes, term...)
	d.ends = append(d.ends, uint32(len(d.bytes)))
	d.slots[at] = slot{hash, uint32(len(d.ends))}
	return uint32(len(d.ends) - 1)
}

func (d *dictionary) grow() {
	old := d.slots
	d.slots = make([]slot, max(64, 2*len(old)))
	mask := uint32(len(d.slots) - 1)
	for _, s := range old {
		if s.next == 0 {
			continue
		}
		at := s.hash & mask
		for d.slots[at].next != 0 {
			at = (at + 1) & mask
		}
		d.slots[at] = s
	}
}
