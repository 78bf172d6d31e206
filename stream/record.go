package stream

import (
	"strconv"
	"strings"
)

// DecodeRecord says what a log record means. It sets Kind, Tenant, ID, Document, ACL, Backfill, Size, Problem and Raw;
// the caller, who knows where the record is, sets the rest. It never fails: what is no change has the Kind Invalid. maxBytes
// limits a document's text. A mapping, if not nil, reads values of another shape.
func DecodeRecord(raw *Raw, mapping *Mapping, maxBytes int) Change {
	c := Change{Raw: raw, Size: len(raw.Key) + len(raw.Value)}
	for _, h := range raw.Headers {
		c.Size += len(h.Key) + len(h.Value)
	}
	c.Backfill = raw.Backfill()
	p := c.decode(mapping, maxBytes)
	if p != nil {
		c.Kind, c.Document, c.ACL, c.Problem = Invalid, nil, nil, p
	}
	return c
}

func (c *Change) decode(mapping *Mapping, maxBytes int) *Problem {
	raw := c.Raw
	key, access := strings.CutSuffix(string(raw.Key), AccessSuffix)
	if mapping != nil && !access {
		return c.decodeMapped(mapping, maxBytes)
	}
	if raw.Key == nil {
		return &Problem{CodeKeyMissing, "the record has no key; the key is the document's id"}
	}
	c.Tenant, c.ID = SplitKey(key)
	if c.Tenant == "" && strings.Contains(key, TenantSeparator) {
		return &Problem{CodeIDInvalid, "the tenant is empty"}
	}
	if p := checkNames(c.Tenant, c.ID); p != nil {
		return p
	}
	var p *Problem
	switch {
	case access:
		c.Kind = Access
		if raw.Value != nil {
			c.ACL, p = DecodeAccess(raw.Value)
		}
	case raw.Value == nil:
		c.Kind = Delete
	default:
		c.Kind = Upsert
		if c.Document, p = DecodeDocument(raw.Value, maxBytes); p == nil {
			p = c.agree()
		}
	}
	return p
}

// agree makes the document's tenant and the key's one.
func (c *Change) agree() *Problem {
	if c.Document.Tenant != "" && c.Document.Tenant != c.Tenant {
		return &Problem{CodeTenantMismatch, `the field "tenant" and the record's key name different tenants`}
	}
	c.Document.Tenant = c.Tenant
	return nil
}

// access reads {"acl":[…]}.
func (d *decoder) access() ([]string, *Problem) {
	if d.next() != '{' {
		return nil, notJSON("the value is not a JSON object")
	}
	var acl []string
	p := d.object("", func(key string) *Problem {
		if key != "acl" {
			return &Problem{CodeUnknownField, "the field " + strconv.Quote(key) + " is unknown; an access record has \"acl\" only"}
		}
		if acl != nil {
			return notJSON(`the field "acl" is there twice`)
		}
		var p *Problem
		acl, p = d.strings("acl")
		return p
	})
	switch {
	case p != nil:
		return nil, p
	case d.next() != 0 || d.pos != len(d.data):
		return nil, d.syntax()
	case acl == nil:
		return nil, notJSON(`the field "acl" is missing; a null value clears the override`)
	}
	return acl, nil
}

// DecodeAccess reads {"acl":[…]}, as strictly as DecodeDocument.
func DecodeAccess(data []byte) ([]string, *Problem) {
	d := decoder{data: data}
	return d.access()
}

// EncodeRecord is the inverse of DecodeRecord: the key, the value (nil for a tombstone) and the headers of the record that
// says c. It refuses what DecodeRecord would call Invalid.
func EncodeRecord(c *Change) (key, value []byte, headers []Header, problem *Problem) {
	if p := checkNames(c.Tenant, c.ID); p != nil {
		return nil, nil, nil, p
	}
	name := c.Key()
	switch c.Kind {
	case Upsert:
		if c.Document == nil {
			return nil, nil, nil, notJSON("an upsert needs a document")
		}
		d := *c.Document
		if d.Tenant != "" && d.Tenant != c.Tenant {
			return nil, nil, nil, &Problem{CodeTenantMismatch, "the document's tenant is not the change's"}
		}
		d.Tenant = c.Tenant
		var p *Problem
		if value, p = EncodeDocument(&d); p != nil {
			return nil, nil, nil, p
		}
	case Delete:
	case Access:
		name += AccessSuffix
		if c.ACL != nil {
			var p *Problem
			if value, p = appendStrings([]byte(`{"acl":`), "acl", c.ACL); p != nil {
				return nil, nil, nil, p
			}
			value = append(value, '}')
		}
	default:
		return nil, nil, nil, notJSON("a change of the kind " + c.Kind.String() + " can't be written")
	}
	if c.Backfill {
		headers = []Header{{Key: HeaderBackfill, Value: []byte("1")}}
	}
	return []byte(name), value, headers, nil
}

// PartitionKey is the part of a record's key that decides its partition: an access record lives beside its document.
func PartitionKey(key []byte) []byte {
	if n := len(key) - len(AccessSuffix); n >= 0 && string(key[n:]) == AccessSuffix {
		return key[:n]
	}
	return key
}
