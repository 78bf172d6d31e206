package httpd

import (
	"math/rand/v2"
	"net/http"
)

// requestID is the caller's X-Request-Id if it is fit for a log, else a new one. It tells requests apart; nothing depends on it being hard to guess.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if id != "" && len(id) <= 128 {
		fit := true
		for i := range len(id) {
			if id[i] <= ' ' || id[i] > '~' {
				fit = false
			}
		}
		if fit {
			return id
		}
	}
	const digits = "0123456789abcdef"
	var b [16]byte
	n := rand.Uint64()
	for i := range b {
		b[i] = digits[n&15]
		n >>= 4
	}
	return string(b[:])
}
