package stream

import (
	"strings"
	"unicode/utf8"
)

// TenantSeparator stands between tenant and id in a key.
const TenantSeparator = "\x1f"

// AccessSuffix ends the key of an Access change, which lives in its document's own partition.
const AccessSuffix = "\x1eacl"

// MaxIDBytes is the longest document id.
const MaxIDBytes = 1024

// Key joins tenant and id. Without a tenant it is the id alone.
func Key(tenant, id string) string {
	if tenant == "" {
		return id
	}
	return tenant + TenantSeparator + id
}

// SplitKey is the inverse of Key.
func SplitKey(key string) (tenant, id string) {
	if tenant, id, ok := strings.Cut(key, TenantSeparator); ok {
		return tenant, id
	}
	return "", key
}

// CheckID tells whether id may name a document, or tenant a tenant.
func CheckID(id string) *Problem {
	switch {
	case id == "":
		return &Problem{CodeIDInvalid, "the id is empty"}
	case len(id) > MaxIDBytes:
		return &Problem{CodeIDInvalid, "the id is longer than 1024 bytes"}
	case !utf8.ValidString(id):
		return &Problem{CodeIDInvalid, "the id is not valid UTF-8"}
	}
	for _, r := range id {
		if r < 0x20 || (r >= 0x7f && r < 0xa0) {
			return &Problem{CodeIDInvalid, "the id holds a control character"}
		}
	}
	return nil
}

// Version joins a log's epoch with an offset into a number that grows with every change of a document, epoch·2^40 + offset + 1: the first one is
// 1, because 0 stands for a document that was never written. It has room for 2^23 epochs of 2^40 (1.1e12) changes each.
func Version(epoch int32, offset int64) int64 { return int64(epoch)<<40 + offset + 1 }

// OffsetOf is the offset of the change that has the version, in the log of its epoch.
func OffsetOf(version int64) int64 { return (version - 1) & (1<<40 - 1) }
