// Package docs carries liverag's own documentation in the binary, for its web page and as the demo's corpus on a
// machine that has nothing better.
package docs

import "embed"

// Files holds the guides (*.md) and the decisions (adr/*.md).
//
//go:embed *.md adr/*.md
var Files embed.FS
