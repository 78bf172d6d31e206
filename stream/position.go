package stream

import "errors"

// ErrPositionUnknown: a source was asked to start from, or was moved to, an offset that the log does not reach. The log was
// re-created, restored from an older copy, or lost data; whoever kept the position must be built anew from the beginning.
var ErrPositionUnknown = errors.New("position is beyond the end of the log")

// ErrLogChanged: the topic was re-created, or has another number of partitions, since the log was opened.
var ErrLogChanged = errors.New("log is not the one that was opened")
