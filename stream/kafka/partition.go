package kafka

import "github.com/liverag/liverag/stream"

// partitionOf is where Kafka's default partitioner puts a record, so that whoever else writes to the topic and we agree; an
// access record goes where its document is. See org.apache.kafka.clients.producer.internals.BuiltInPartitioner.
func partitionOf(key []byte, partitions int32) int32 {
	return int32((murmur2(stream.PartitionKey(key)) & 0x7fffffff) % uint32(partitions))
}

// murmur2 is Austin Appleby's MurmurHash2, 32 bits, with the seed Kafka uses.
func murmur2(b []byte) uint32 {
	const m, r = 0x5bd1e995, 24
	h := 0x9747b28c ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h = h*m ^ k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}
