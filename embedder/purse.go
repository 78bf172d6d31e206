package embedder

import "time"

// Purse is what may be spent with a provider. [Batch] takes from it before each request. Implementations are safe for concurrent use, and don't block.
type Purse interface {
	// Take sets tokens apart for a request. If they can't be had, nothing is set apart, until is when to ask again, and why says it for people. A zero until means that they are taken.
	Take(role Role, tokens int64) (until time.Time, why string)
	// Settle ends what Take set apart: the provider charged so many tokens, 0 if the request was not answered.
	Settle(role Role, taken, charged int64)
}
