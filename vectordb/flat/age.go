package flat

import "time"

// mostAbsence is how much time passes for tombstones between a tombstone's writing and the next opening, whatever the clock says of it.
const mostAbsence = 24 * time.Hour

// age is the time by which tombstones grow old. The wall clock is not that time: set a week forward it would let everything be forgotten at once that late
// writers have to be kept from. While a generation is open, this one goes on with the clock that does not jump, and it begins at the wall clock's time only as far as
// that is likely after the newest tombstone. So a tombstone may stay longer than it has to, as long as hardly any come after it; it never goes a week too early.
type age struct {
	began  time.Time // with the clock that does not jump
	micros int64     // at that moment
}

// newAge begins at a moment of the wall clock, after the newest tombstone's time; 0: there is none.
func newAge(wall time.Time, newest int64) age {
	micros := wall.UnixMicro()
	if newest != 0 {
		micros = max(newest, min(micros, newest+mostAbsence.Microseconds()))
	}
	return age{time.Now(), micros}
}

// now is in microseconds.
func (a age) now() int64 { return a.micros + time.Since(a.began).Microseconds() }
