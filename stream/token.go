package stream

import (
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"slices"
)

const tokenVersion = 1

// Token is what callers pass as `after`: opaque, safe in a URL, and valid for this log only. It holds, for each partition
// written, the offset of the last change.
func (r Receipt) Token() string {
	last := map[int32]int64{}
	for _, p := range r.Positions {
		if o, ok := last[p.Partition]; !ok || p.Offset > o {
			last[p.Partition] = p.Offset
		}
	}
	partitions := make([]int32, 0, len(last))
	for p := range last {
		partitions = append(partitions, p)
	}
	slices.Sort(partitions)

	var flags byte
	if len(r.Positions) == 1 {
		flags = 1
	}
	b := []byte{tokenVersion, flags}
	b = append(b, identityHash(r.Identity)...)
	for _, p := range partitions {
		b = binary.AppendUvarint(b, uint64(p))
		b = binary.AppendUvarint(b, uint64(last[p]))
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParseToken reads a token of the log whose Identity.ID is given: the offset of the last change in each partition, and
// whether it is about one single change. The error is ErrTokenUnknown.
func ParseToken(token, identity string) (last []Position, single bool, err error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) < 10 || b[0] != tokenVersion || b[1] > 1 || string(b[2:10]) != string(identityHash(identity)) {
		return nil, false, ErrTokenUnknown
	}
	single = b[1] == 1
	for b = b[10:]; len(b) > 0; {
		partition, n := binary.Uvarint(b)
		if n <= 0 || partition > 1<<31-1 {
			return nil, false, ErrTokenUnknown
		}
		offset, m := binary.Uvarint(b[n:])
		if m <= 0 || offset > 1<<62 {
			return nil, false, ErrTokenUnknown
		}
		last = append(last, Position{Partition: int32(partition), Offset: int64(offset)})
		b = b[n+m:]
	}
	if single && len(last) != 1 {
		return nil, false, ErrTokenUnknown
	}
	return last, single, nil
}

// identityHash tells logs apart by accident, not by attack: a token grants nothing.
func identityHash(identity string) []byte {
	h := fnv.New64a()
	h.Write([]byte(identity))
	return h.Sum(nil)
}
