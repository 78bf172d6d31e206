//go:build !race

package indexer_test

const defaultSeeds = 500
