package local

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// spare is how many threads of Go code there are beside those for the model: see Spare.
var spare atomic.Int32

var spareOnce = sync.OnceFunc(func() {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	spare.Store(1)
})

// Spare gives the program one thread of Go code more than the model works on, by raising GOMAXPROCS. It does so once; a server that has to answer while the model is busy calls it.
//
// Without it, every goroutine on a change's way to its index waits for the end of a unit of work, and what arrives from the network is seen ten milliseconds late: the runtime looks for it
// when a thread has nothing to run, and else that seldom. With it the operating system shares out the processors, and whoever has slept goes first. The price is that GOMAXPROCS no longer follows
// a container's limit when that is changed.
func Spare() { spareOnce() }

// Processors is how many units of work the models do at once: GOMAXPROCS as it was before [Spare].
func Processors() int { return runtime.GOMAXPROCS(0) - int(spare.Load()) }
