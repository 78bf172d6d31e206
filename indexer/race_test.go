//go:build race

package indexer_test

// The race detector makes a seed ten times as slow.
const defaultSeeds = 40
