package main

// apiError is a problem that the server answered with (RFC 9457).
type apiError struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

func (e *apiError) Error() string { return e.Code + ": " + e.Detail }
