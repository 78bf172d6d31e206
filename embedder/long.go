package embedder

import "errors"

// ErrInputTooLong is wrapped by the permanent *Error for an input over MaxInput, where the policy is to reject it.
var ErrInputTooLong = errors.New("the input is longer than the model reads")
