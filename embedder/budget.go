package embedder

import (
	"math"
	"math/rand/v2"
	"time"
)

// Limits are what is known beforehand of what a provider allows. The zero value: nothing, which is right for a provider that tells it with its answers, and for a model of our own.
type Limits struct {
	// RPM and TPM are requests and tokens a minute. Defaults to 0: not known. Where the provider tells lower ones, those are kept to.
	RPM, TPM int
	// Burst is how long a time's allowance may be used at once after a pause. Defaults to 1 second, and below 60 requests a minute to a minute, since so few can't be kept by
	// the second; until the provider tells otherwise.
	Burst time.Duration
}

// bucket is our account of one allowance. What is taken may exceed what is there: one that is overdrawn has to fill again first.
type bucket struct {
	rate  float64 // a second; 0: no limit is known
	size  float64
	level float64
	at    time.Time
	// A fixed window: nothing comes back until full, and then all of it, once every window. 0: it fills evenly.
	window time.Duration
	full   time.Time
	// moved is the sum of all corrections, so that what was noted before one can be compared with what is told after it.
	moved float64
	// more is by how much several answers in a row, of which there were so many, said at least that there is more than we think.
	more    float64
	answers int
	told    time.Time // when the limit was last told, or else doubled
}

func newBucket(rate float64, burst time.Duration, now time.Time) bucket {
	size := max(1, rate*burst.Seconds())
	return bucket{rate: rate, size: size, level: size, at: now}
}

// fill brings the level up to now.
func (b *bucket) fill(now time.Time) {
	passed := now.Sub(b.at)
	b.at = now
	if b.rate == 0 {
		return
	}
	if b.window == 0 {
		b.level = min(b.size, b.level+passed.Seconds()*b.rate)
		return
	}
	b.level = min(b.size, b.level)
	if !now.Before(b.full) {
		b.level = b.size
		b.full = b.full.Add(b.window * (1 + now.Sub(b.full)/b.window))
	}
}

// wait is how long until n may be taken and keep be left.
func (b *bucket) wait(n, keep float64, now time.Time) time.Duration {
	if b.rate == 0 {
		return 0
	}
	b.fill(now)
	// It fills in floating point: a billionth of a token is not worth another timer.
	lack := min(n+keep, b.size) - b.level
	if lack <= 1e-9*b.size {
		return 0
	}
	if b.window > 0 {
		return max(b.full.Sub(now), 1)
	}
	return seconds(lack / b.rate)
}

// seconds is so many of them, rounded up; what does not fit is as long as can be.
func seconds(s float64) time.Duration {
	if s >= math.MaxInt64/float64(time.Second) {
		return math.MaxInt64
	}
	return time.Duration(math.Ceil(s * float64(time.Second)))
}

// room is how much may be taken so that keep is left; infinite where there is no limit.
func (b *bucket) room(keep float64, now time.Time) float64 {
	if b.rate == 0 {
		return math.Inf(1)
	}
	b.fill(now)
	return b.level - keep
}

// move corrects the level.
func (b *bucket) move(by float64) {
	b.level += by
	b.moved += by
}

// kept is how much of a bucket is left for live work by others: enough for a few requests of it, or a part of a small bucket; and at the beginning of a
// window more than at its end, since nothing comes back before.
func (b *bucket) kept(few float64, now time.Time) float64 {
	keep := min(few, b.size/4)
	if b.window > 0 {
		keep = max(keep, b.size/20*min(1, float64(b.full.Sub(now))/float64(b.window)))
	}
	return keep
}

// account is a pair of buckets.
type account struct{ requests, tokens bucket }

// mark is where an account stood when a request had just been charged to it.
type mark struct{ level, moved float64 }

func (b *bucket) mark() mark { return mark{b.level, b.moved} }

// budget is our account of what a provider allows: what the settings say, what the provider tells, and what was learned from its refusals where it tells nothing. A
// request has to fit into all of them.
type budget struct {
	limits  Limits
	own     account // of the settings
	told    account // of the provider
	learned lesson
	heard   hearsay
	stated  bool // the provider says what is left

	obeyed time.Duration // for how long after a request it is obeyed where it says that there is nothing left
	sent   time.Time     // when the last request was
	defies bool          // the next one goes although it says so

	refused   time.Time // when the pause began that notBefore ends
	notBefore time.Time // nothing is sent until then: the provider's word, or our patience after refusals that came without one
	refusals  int       // in a row
	strikes   int       // refusals, each within strikeMemory of the one before
	struck    time.Time

	factor float64 // what the provider charges for a token that we count
	under  float64 // by what part of our count it charged more, for the worst request of late

	liveSeen   time.Time // when live work was last sent
	liveTokens float64   // of a request of it, about
}

// fewRequests a minute can't be kept by the second.
const fewRequests = 60

func newBudget(limits Limits, now time.Time) budget {
	burst := limits.Burst
	if burst <= 0 {
		burst = time.Second
		if limits.RPM > 0 && limits.RPM < fewRequests {
			burst = time.Minute
		}
	}
	b := budget{limits: limits, factor: 1, obeyed: firstObeyed}
	b.own = account{newBucket(float64(limits.RPM)/60, burst, now), newBucket(float64(limits.TPM)/60, burst, now)}
	b.told = account{bucket{at: now}, bucket{at: now}}
	b.learned = lesson{account: account{bucket{at: now}, bucket{at: now}}}
	return b
}

// each calls f for every bucket that counts. The settings' count where they ask for less than the provider says, whose own account is the better one otherwise.
func (b *budget) each(f func(bucket *bucket, tokens bool)) {
	if b.told.requests.rate == 0 || b.own.requests.rate < .99*b.told.requests.rate {
		f(&b.own.requests, false)
	}
	if b.told.tokens.rate == 0 || b.own.tokens.rate < .99*b.told.tokens.rate {
		f(&b.own.tokens, true)
	}
	f(&b.told.requests, false)
	f(&b.told.tokens, true)
	f(&b.learned.requests, false)
	f(&b.learned.tokens, true)
}

// rates are the requests and tokens a second that are allowed; infinite where no limit is known.
func (b *budget) rates() (requests, tokens float64) {
	requests, tokens = math.Inf(1), math.Inf(1)
	b.each(func(bucket *bucket, isTokens bool) {
		switch {
		case bucket.rate == 0:
		case isTokens:
			tokens = min(tokens, bucket.rate)
		default:
			requests = min(requests, bucket.rate)
		}
	})
	return requests, tokens
}

// unlimited tells whether no limit is known.
func (b *budget) unlimited() bool {
	requests, tokens := b.rates()
	return math.IsInf(requests, 1) && math.IsInf(tokens, 1)
}

// liveMemory is for how long after live work some of the allowance is kept for more of it.
const liveMemory = time.Minute

// keep is how many requests and tokens of an allowance a lane leaves to live work.
func (b *budget) keep(lane Lane, bucket *bucket, tokens bool, now time.Time) float64 {
	if lane == Live || b.liveSeen.IsZero() || now.Sub(b.liveSeen) > liveMemory {
		return 0
	}
	if tokens {
		return bucket.kept(2*b.liveTokens, now)
	}
	return bucket.kept(2, now)
}

// margin is by what part a request may be charged more than we count, and those that are in flight too, which the provider's account tells nothing of yet.
func (b *budget) margin(flying int) float64 { return 1.25 * b.under * math.Sqrt(1+float64(flying)) }

// wait is how long a request of at least so many tokens has to wait.
func (b *budget) wait(lane Lane, tokens float64, flying int, now time.Time) time.Duration {
	wait, told := b.notBefore.Sub(now), time.Duration(0)
	b.learned.grow(now)
	if !b.stated {
		b.heard.grow(&b.told, now)
	}
	b.each(func(bucket *bucket, isTokens bool) {
		n, keep := 1.0, b.keep(lane, bucket, isTokens, now)
		if isTokens {
			n = tokens
			keep += min(n*b.margin(flying), bucket.size/2)
		}
		held := bucket.wait(n, keep, now)
		if held > 0 && (bucket == &b.learned.requests || bucket == &b.learned.tokens) {
			b.learned.wanted = true
		}
		if bucket != &b.told.requests && bucket != &b.told.tokens {
			wait = max(wait, held)
			return
		}
		if told = max(told, held); held > 0 {
			b.heard.wanted = true
		}
	})
	obeyed := max(b.sent.Add(b.obeyed).Sub(now), 0)
	b.defies = told > obeyed && obeyed == 0
	return max(wait, min(told, obeyed), 0)
}

// want notes that work could do with more than is known to be allowed.
func (b *budget) want() { b.learned.wanted, b.heard.wanted = true, true }

// A provider that says nonsense (a limit of nothing, a reset in a year) must not stop us for longer than its refusals do. So when nothing was sent for a time, one request is,
// whatever it says; after one that was refused, that time is twice as long, and after one that was answered, a quarter.
const (
	firstObeyed, leastObeyed = 5 * time.Minute, time.Second
	// longestObeyed is also the longest time to wait that is believed of a refusal.
	longestObeyed = time.Hour
)

// room is how many tokens a request may have now.
func (b *budget) room(lane Lane, flying int, now time.Time) float64 {
	room := math.Inf(1)
	b.each(func(bucket *bucket, isTokens bool) {
		if isTokens {
			room = min(room, bucket.room(b.keep(lane, bucket, true, now), now)/(1+b.margin(flying)))
		}
	})
	return room
}

// largest is how many tokens a request may ever have: more than a full allowance has, a provider refuses for good.
func (b *budget) largest() float64 {
	if b.told.tokens.rate > 0 {
		if b.stated {
			return b.told.tokens.size
		}
		return 60 * b.told.tokens.rate
	}
	if b.own.tokens.rate > 0 {
		return 60 * b.own.tokens.rate
	}
	return math.Inf(1)
}

// aim is how many tokens a request is worth waiting for while tokens are what is short: so many that requests don't run out first, with as many to spare, and that there are not more than ten a second.
func (b *budget) aim() float64 {
	requests, tokens := b.rates()
	if math.IsInf(tokens, 1) {
		return 0
	}
	often := float64(oftenFirst)
	if tokens == b.learned.tokens.rate {
		often = b.learned.often
	}
	return max(2*tokens/requests, tokens/often)
}

// scarce tells whether requests are what is short: then no place in one should stay empty.
func (b *budget) scarce(now time.Time) bool {
	scarce := false
	b.each(func(bucket *bucket, isTokens bool) {
		if !isTokens && bucket.rate > 0 {
			bucket.fill(now)
			scarce = scarce || bucket.level < 2
		}
	})
	return scarce
}

// charge is what was set apart for a request, and how things stood then.
type charge struct {
	sent    time.Time
	defied  bool    // it was sent although the provider had said that nothing was left
	counted float64 // tokens, by our count
	tokens  float64 // by what the provider will charge for them, as far as we know
	// Where the provider's account stood.
	requestsMark, tokensMark mark
	// The refusal that had taught us last, and what had been sent since.
	refusal                  int
	sentRequests, sentTokens float64
}

// take charges a request.
func (b *budget) take(lane Lane, counted float64, now time.Time) charge {
	c := charge{sent: now, defied: b.defies, counted: counted, tokens: counted * b.factor}
	b.sent = now
	b.learned.note(&c)
	for _, a := range []*account{&b.own, &b.told, &b.learned.account} {
		a.requests.fill(now)
		a.tokens.fill(now)
		a.requests.level--
		a.tokens.level -= c.tokens
	}
	c.requestsMark, c.tokensMark = b.told.requests.mark(), b.told.tokens.mark()
	if lane == Live {
		if b.liveSeen.IsZero() {
			b.liveTokens = c.tokens
		}
		b.liveSeen = now
		b.liveTokens += (c.tokens - b.liveTokens) / 8
	}
	return c
}

// enoughTokens are in a request that says something about how the provider counts: of less, rounding is the most.
const enoughTokens = 32

// otherwise is how far off our count is taken to be for some texts, once it was seen to be off.
const otherwise = .3

// settle learns from an answer. failed is its *Error, nil for vectors.
func (b *budget) settle(c charge, r Report, failed *Error, now time.Time) {
	if c.defied {
		switch {
		case failed == nil:
			b.obeyed = max(b.obeyed/4, leastObeyed)
		case failed.Throttled:
			b.obeyed = min(2*b.obeyed, longestObeyed)
		}
	}
	if r.Charged > 0 && failed == nil && c.counted > 0 {
		charged := float64(r.Charged)
		off := c.tokens - charged
		for _, a := range []*account{&b.own, &b.learned.account} {
			a.tokens.level += off
		}
		if !b.stated {
			b.told.tokens.move(off)
		}
		// The first answers say nearly all there is to say; later ones are averaged.
		ratio := min(max(charged/c.counted, 1./mostCharged), mostCharged)
		if b.factor == 1 && math.Abs(ratio-1) > .01 {
			// It counts otherwise; so it may count each text otherwise.
			b.factor, b.under = ratio, max(b.under, otherwise)
		}
		if c.counted >= enoughTokens {
			b.under = max(.97*b.under, ratio/b.factor-1)
			b.factor += (ratio - b.factor) / 8
		}
	}
	if r.Calls > 1 {
		for _, a := range []*account{&b.own, &b.told, &b.learned.account} {
			a.requests.level -= float64(r.Calls - 1)
		}
	}
	if failed != nil && failed.Throttled && (!r.Requests.State || r.Requests.Left >= 1) && (!r.Tokens.State || r.Tokens.Left >= c.tokens) {
		// It refused what it says it has left: of the two, the refusal is true.
		r.Requests.State, r.Tokens.State = false, false
	}
	b.told.requests.tell(r.Requests, c.requestsMark, c.sent, now)
	b.told.tokens.tell(r.Tokens, c.tokensMark, c.sent, now)
	switch {
	case failed == nil:
		b.stated = b.stated || r.Requests.State || r.Tokens.State
	case r.Requests.Limit > 0 || r.Tokens.Limit > 0:
		b.heard.again(r, now)
	}

	switch {
	case failed == nil:
		b.refusals = 0
		if b.stated {
			b.told.requests.age(now)
			b.told.tokens.age(now)
		}
	case failed.Throttled:
		b.throttled(c, r, failed, now)
	}
	if failed != nil && failed.RetryAfter > 0 {
		if until := now.Add(min(failed.RetryAfter, longestObeyed)); until.After(b.notBefore) {
			b.pause(until, now)
		}
	}
}

const (
	// strikesMost refusals close together, each within strikeMemory of the one before, and the limits are not what they are said to be.
	strikesMost, strikeMemory = 4, 20 * time.Second
	// firstPause is the longest wait after a refusal for too much that says no time; it doubles with each further one, up to latestNext. After other failures it is up to longestPause.
	firstPause   = 250 * time.Millisecond
	longestPause = 30 * time.Second
)

// throttled takes a 429 to heart: whatever we thought, the provider's allowance is used up.
func (b *budget) throttled(c charge, r Report, failed *Error, now time.Time) {
	for _, a := range []*account{&b.own, &b.learned.account} {
		a.requests.level, a.tokens.level = min(a.requests.level, 0), min(a.tokens.level, 0)
	}
	if !r.Requests.State && !r.Tokens.State {
		for _, bucket := range []*bucket{&b.told.requests, &b.told.tokens} {
			if bucket.level > 0 {
				bucket.move(-bucket.level)
			}
		}
	}
	if !c.sent.After(b.struck) || c.sent.Before(b.notBefore) && now.Before(b.notBefore) {
		return // it was under way when an earlier one was refused: the same news
	}
	b.refusals++
	unlimited := b.unlimited()
	if b.strikes++; now.Sub(b.struck) > strikeMemory {
		b.strikes = 1
	}
	b.struck = now
	// Where limits are known, a refusal now and then is an accident: two requests that came there together. Many are another limit than the known one.
	if !b.stated && (unlimited || b.learned.rate > 0 || b.strikes >= strikesMost) {
		b.learned.refuse(c, now)
	}
	// Whatever was told, a refusal is followed by a pause; and where it was not the first, by a longer one than the account says.
	if failed.RetryAfter <= 0 && (b.refusals > 1 || b.wait(Live, c.tokens, 0, now) == 0) {
		longest := min(latestNext, firstPause<<min(b.refusals-1, 10))
		b.pause(now.Add(longest/2+rand.N(longest/2+1)), now)
	}
}

// pause sends nothing until then.
func (b *budget) pause(until, now time.Time) {
	if !now.Before(b.notBefore) {
		b.refused = now
	}
	b.notBefore = until
}

// doubt drops from a report on a request of so many inputs, and tokens by our count, what cannot be true.
func (r *Report) doubt(inputs, tokens int) {
	r.Calls = min(r.Calls, 4*inputs)
	r.Charged = min(max(r.Charged, 0), mostCharged*(tokens+mostCharged*inputs))
	r.Requests.doubt()
	r.Tokens.doubt()
}

// mostCharged is how many times the tokens that we count a provider may charge; for what it puts before each input, it may charge for as many more.
const mostCharged = 16

// doubt drops what cannot be true. A limit below one cannot: nothing would ever be served.
func (t *Told) doubt() {
	if !(t.Limit >= 1 && t.Limit <= 1e15) {
		t.Limit = 0
	}
	if t.Per < 0 || t.Per > longestPer {
		t.Per, t.Limit, t.State = 0, 0, false
	}
	if !(t.Left >= -1e15 && t.Left <= 1e15) {
		t.Left, t.State = 0, false
	}
	t.Left, t.Reset = max(t.Left, 0), min(max(t.Reset, 0), longestPer)
}

// longestPer is the longest time that a limit is for.
const longestPer = 31 * 24 * time.Hour

// tell takes over what the provider told of an allowance. at is where our account of it stood when the request had been charged, at the time sent.
func (b *bucket) tell(t Told, at mark, sent, now time.Time) {
	b.fill(now)
	per := t.Per
	if per <= 0 {
		per = time.Minute
	}
	fresh := false
	if t.Limit > 0 {
		b.told = now
		rate := t.Limit / per.Seconds()
		if math.Abs(rate-b.rate) > .01*b.rate {
			known := b.rate > 0
			fresh = true
			b.rate, b.window = rate, 0
			// Until it is told what a pause leaves us, a second's worth is.
			b.size = max(1, rate)
			if !t.State {
				b.size = max(1, heardSize*rate)
			}
			if !known && !t.State {
				b.move(-b.level) // whoever tells without saying what is left has just refused us
			}
		}
	}
	if !t.State || b.rate == 0 {
		return
	}
	if t.Limit == 0 {
		t.Limit = b.rate * per.Seconds() // as it was told before
	}
	t.Left = min(t.Left, t.Limit)
	before := false // it is of the window before this one
	if t.Reset > 0 || t.Left >= t.Limit {
		// Filling evenly it is full again at Reset, so that tells its size. One that is not full by then at that pace gets all of it at once.
		before = b.window > 0 && sent.Before(b.full.Add(-b.window))
		size := t.Left + b.rate*t.Reset.Seconds()
		if size > 1.02*t.Limit+b.rate*resetRounding.Seconds() {
			b.window = per
		}
		if b.window > 0 {
			b.size, b.full = t.Limit, now.Add(t.Reset)
		} else {
			b.size = max(1, t.Left, min(size, max(t.Limit, 1)))
		}
	}
	if before {
		return
	}
	// The request was counted when it came there, which may have been long after it was sent; what had come back until then would be counted twice. So what an answer says is
	// there too much, may be that. The least of several is believed.
	left := t.Left
	if exact := t.Limit - b.rate*t.Reset.Seconds(); t.Reset > 0 && b.window == 0 && exact > left && exact < left+1 {
		left = exact // what is left is told in whole numbers, and the rest by the time until all is back
	}
	by := left - (at.level + b.moved - at.moved)
	if by > 0 && !fresh {
		if by -= min(b.rate*now.Sub(sent).Seconds(), b.size/4); by <= 0 {
			b.answers = 0
			return
		}
		if b.answers == 0 || by < b.more {
			b.more = by
		}
		if b.answers++; b.answers < answersForMore {
			return
		}
		by = b.more
	}
	b.answers = 0
	b.move(by)
	if b.level > b.size {
		b.move(b.size - b.level)
	}
}

// heardSize is how much of a second's worth that is where nobody says what is left: if it was all of it, the least delay on the way would have one refused that comes after a pause.
const heardSize = .97

// toldFor is for how long a limit holds that is not told again.
const toldFor = 10 * time.Minute

// age doubles a limit that answers have not told again for long, though they used to: it may be gone.
func (b *bucket) age(now time.Time) {
	if b.rate > 0 && now.Sub(b.told) >= toldFor {
		b.fill(now)
		b.rate, b.size, b.told = min(2*b.rate, 1e15), min(2*b.size, 1e15), now
	}
}

// answersForMore is how many answers in a row have to say that there is more than we think.
const answersForMore = 12

// resetRounding is by how much a told reset may be too long because it was rounded up.
const resetRounding = time.Second

// climb is how more than a known limit is tried for: little by little, as long as there is work for it.
type climb struct {
	next   time.Time // when the last step was, or the first one may be; zero: none may
	wanted bool      // work had to wait for the limit since then
}

// step is the time that a step may make up for; 0: none may be made now.
func (c *climb) step(now time.Time) time.Duration {
	passed := now.Sub(c.next)
	if c.next.IsZero() || passed < time.Second/4 {
		return 0
	}
	if c.next = now; !c.wanted {
		return 0
	}
	c.wanted = false
	return min(passed, 2*time.Second) // in a longer time nobody asked, and nothing was tried
}

// longer is for how long nothing more is tried once that was in vain again.
func longer(quiet time.Duration) time.Duration {
	return min(max(quiet+quiet/2, quietFirst), quietLongest)
}

// hearsay is how limits that only refusals tell are believed: the next refusal says them again, and without one they may have been raised.
type hearsay struct {
	climb
	rates [2]float64 // of requests and tokens, as they were told last
	quiet time.Duration
}

// again hears them.
func (h *hearsay) again(r Report, now time.Time) {
	rates := [2]float64{r.Requests.Limit, r.Tokens.Limit}
	if h.quiet = longer(h.quiet); rates != h.rates {
		h.quiet = quietFirst
	}
	h.rates, h.next = rates, now.Add(h.quiet)
}

// grow tries for more, after a while.
func (h *hearsay) grow(told *account, now time.Time) {
	step := h.step(now)
	if step == 0 {
		return
	}
	factor := math.Pow(slowly, step.Seconds())
	for _, b := range []*bucket{&told.requests, &told.tokens} {
		b.fill(now)
		b.rate, b.size = b.rate*factor, b.size*factor
	}
}

// lesson is what a provider that tells nothing taught us by refusing. At a refusal less of its allowance is left than what it refused; so what it took between one and the next is what it
// allows in that time, but for the sizes of the two that were refused, whatever may be saved up over a pause.
type lesson struct {
	account
	climb
	number int // how many refusals counted
	// The refusal that is measured from: when it was sent, or else the first request of all, how many tokens it had, and what was sent since.
	since                    time.Time
	refused                  float64
	sentRequests, sentTokens float64

	rate     float64 // the pace, a second; 0: none was learned
	known    float64 // what it was after the last refusal
	ofTokens bool    // it is of tokens, not of requests
	measured bool    // by what was taken between two refusals
	sure     bool    // over a long time
	blind    bool    // what was left at since is not known
	least    float64 // what it is at least, if it is the right allowance of the two; 0: not known
	often    float64 // how many requests a second are aimed at
	rarer    bool    // it was made less for what was measured
	faster   float64 // by how much it grows in a second, while it is wanted
	grown    bool    // since the last refusal
	quiet    time.Duration
	row      int       // refusals with nothing taken since the last
	rough    int       // refusals that were not enough for a measurement
	short    run       // of refusals after a request or two
	vain     int       // refusals in a row at a pace that had not grown since the last, and was not far off
	before   float64   // the pace before those
	deaf     time.Time // nothing is learned until then: the refusals have nothing to do with the pace
}

// run is what was taken in several times between refusals.
type run struct {
	refusals         int
	since            time.Time
	requests, tokens float64
}

const (
	// learnedCaution keeps below what was measured, and learnedLittle below what was measured over a long time.
	learnedCaution, learnedLittle = .98, .995
	// learnedBurst is how long a time's allowance may be used at once.
	learnedBurst = 100 * time.Millisecond
	// quietFirst is how long a measured pace is kept before more is tried, and by a half longer each time that nothing more is found, up to quietLongest.
	quietFirst, quietLongest = time.Minute, 10 * time.Minute
	// tokensBind: a request of so many tokens that is refused, is so for its tokens. Providers allow from tokensLeast to 3,000 tokens for each request that they allow.
	tokensBind, tokensLeast = 1000, 300
	// vainMost refusals in a row at a measured pace, each of which lowered it, and it is not the pace that is refused.
	vainMost = 4
	// deafFor is for how long it is then kept as it was.
	deafFor = time.Minute
	// shortMost refusals in a row, each after shortest requests at the most, and it was the other of the two allowances that they were for.
	shortMost, shortest = 4, 2
	// oftenFirst requests a second are aimed at where the pace is one of tokens, and by oftenLess times fewer after it had seemed to be one of requests.
	oftenFirst, oftenLess = 10, 5
	// leastPart of what was taken before the first refusal, had that been a minute's allowance, and it was not an allowance of that.
	leastPart = .7
	// learnedHead is how long a time's allowance may have been saved up before the beginning.
	learnedHead = time.Minute
	// enough times what was refused has to be taken for a measurement.
	enough = 5
	// idle is the part of a known pace that was kept to if less than it was wanted.
	idle = .9
	// agreed is by what part two rough figures may differ that are as good as a measurement.
	agreed = .1
	// latestNext is how long after a refusal the next such request goes at the latest: at no pace at all it would never be known that things have changed.
	latestNext = time.Minute
	// quickly and slowly are how a pace grows in a second that was guessed, and that was measured.
	quickly, slowly = 4, 1.2
	// slowest is the same once roughMost refusals in a row were not enough to measure it.
	slowest, roughMost = 1.05, 5
	// cutWithin is how soon after a refusal the next one says that the limit was lowered, if next to nothing was taken.
	cutWithin = 5 * time.Second
)

// note counts a request that is being sent.
func (l *lesson) note(c *charge) {
	if l.since.IsZero() {
		l.since = c.sent
	}
	c.refusal, c.sentRequests, c.sentTokens = l.number, l.sentRequests, l.sentTokens
	l.sentRequests++
	l.sentTokens += c.tokens
}

// refuse learns from a refusal.
func (l *lesson) refuse(c charge, now time.Time) {
	if c.refusal != l.number {
		return // it was under way when another one was refused: no news
	}
	l.number++
	if now.Before(l.deaf) {
		return
	}
	if l.rate > 0 && c.sentRequests == 0 {
		l.again(c, now)
		return
	}
	l.row = 0
	passed := max(c.sent.Sub(l.since).Seconds(), .1)
	if l.rate == 0 {
		// What was saved up before the beginning is in it, which is a minute's allowance at the most. Where it was a second's, growing soon finds out.
		l.ofTokens = c.tokens >= tokensBind
		sent, refused, _ := l.units(c)
		l.often = oftenFirst
		l.learn(c, max(sent, refused/2)/(passed+learnedHead.Seconds()), quickly, 0, now)
		l.least = l.rate
		return
	}
	if l.isShort(c) {
		// It hardly took anything, however slow we were: so it counts something else.
		l.other(charge{sent: c.sent, tokens: c.tokens, sentRequests: l.short.requests, sentTokens: l.short.tokens}, l.short.since, now)
		return
	}
	sent, refused, earlier := l.units(c)
	pace := sent / passed
	if (sent+earlier)/passed < leastPart*l.least && passed >= 1 { // also if as much as was refused had been in debt
		l.other(c, l.since, now)
		return
	}
	precise := sent >= enough*max(refused, earlier) && l.known > pace/2 && !l.blind
	if l.measured && pace < l.known/2 && passed < cutWithin.Seconds() {
		l.measured, l.grown = false, false
	}
	if l.measured && !l.grown && pace > l.rate/2 {
		if l.vain++; l.vain == 1 {
			l.before = l.rate
		}
	} else {
		l.vain = 0
	}
	switch {
	case l.vain == vainMost:
		l.pace(l.before)
		l.vain, l.deaf = 0, now.Add(deafFor)
	case l.vain > 0:
		l.learn(c, learnedCaution*min(pace, l.rate), slowly, max(l.quiet, quietFirst), now)
	case l.measured && l.grown && (l.wasRaised(sent-earlier, passed) || pace < idle*l.known && l.rate > 2*l.known):
		// So much was never allowed before; or so little was taken, as by work that keeps to a share, that a higher limit would not show in it.
		l.learn(c, math.Sqrt(l.known*l.rate), slowly, 0, now)
	case l.measured && l.grown:
		// It was slow for most of the time, so that some of the allowance may have been lost.
		l.learn(c, max(learnedLittle*pace, learnedCaution*l.known), slowly, longer(l.quiet), now)
		l.sure = true
	case precise:
		l.spread(c, passed)
		l.learn(c, learnedCaution*pace, slowly, quietFirst, now)
	case sent >= enough*refused && math.Abs(pace-l.known) < agreed*l.known && !l.blind:
		l.spread(c, passed)
		l.learn(c, learnedCaution*(pace+l.known)/2, slowly, quietFirst, now)
	default:
		// How much of what was sent had been left at the beginning is unknown: all of what was refused then, at the most.
		low := (sent - earlier) / passed
		switch {
		case !l.grown:
			low = max(low, pace/2)
		case l.known < pace/4:
			low = pace // what was lost while it was too slow is more
		default:
			low = max(low, l.known)
		}
		faster := slowly
		if l.rough++; l.rough > roughMost {
			faster = slowest // so that more is taken until the next
		}
		l.learn(c, min(low, pace), faster, 0, now)
	}
}

// spread has requests be fewer and larger than those that a pace of tokens was measured with, once, where it may be requests that are counted after all: then more tokens are taken when
// it grows. That is so where fewer were sent than aimed at, because their inputs are large, or where they were smaller than providers allow for each.
func (l *lesson) spread(c charge, passed float64) {
	often := c.sentRequests / passed / 2
	if l.ofTokens && !l.rarer && (often < l.often/4 || c.sentTokens < tokensLeast*c.sentRequests) {
		l.often, l.rarer = min(often, l.often), true
	}
}

// units are what was sent, what is refused, and what was refused before, in what the pace is of.
func (l *lesson) units(c charge) (sent, refused, earlier float64) {
	if l.ofTokens {
		return c.sentTokens, c.tokens, l.refused
	}
	return c.sentRequests, 1, 1
}

// again is another refusal, when nothing was taken since the last: how long there was nothing is part of what is measured.
func (l *lesson) again(c charge, now time.Time) {
	l.row++
	l.sentRequests, l.sentTokens = 0, 0 // it was refused
	// Not before the pause is over that doubles with each.
	l.next = now.Add(min(4*firstPause<<min(l.row, 10), 2*latestNext))
	// So large a request may never be taken.
	if l.row%shortMost == 0 && !l.ofTokens && c.tokens >= tokensBind {
		l.other(charge{sent: c.sent, tokens: c.tokens}, l.since, now)
	}
}

// other has it that the other of the two allowances is what is refused.
func (l *lesson) other(c charge, since, now time.Time) {
	l.ofTokens = !l.ofTokens
	if l.ofTokens {
		l.often = max(l.often/oftenLess, 1/latestNext.Seconds())
	}
	l.row, l.short, l.least, l.rarer = 0, run{}, 0, false
	sent, _, _ := l.units(c)
	l.learn(c, sent/max(c.sent.Sub(since).Seconds(), .1), slowly, 0, now)
}

// isShort notes how much was taken before a refusal, and tells whether that was next to nothing too often.
func (l *lesson) isShort(c charge) bool {
	if c.sentRequests > shortest || l.measured {
		l.short = run{}
		return false
	}
	if l.short.refusals++; l.short.refusals == 1 {
		l.short.since = l.since
	}
	l.short.requests += c.sentRequests
	l.short.tokens += c.sentTokens
	return l.short.refusals >= shortMost
}

// learn sets the pace after a refusal, and how it grows. quiet is for how long it was measured well enough; 0: it was not.
func (l *lesson) learn(c charge, pace, faster float64, quiet time.Duration, now time.Time) {
	_, refused, _ := l.units(c)
	l.pace(max(pace, refused/latestNext.Seconds()))
	if l.measured = quiet > 0; l.measured {
		l.rough, l.least = 0, 0 // it may be lowered
	}
	l.known, l.faster, l.quiet = l.rate, faster, quiet
	l.requests.level, l.tokens.level = 0, 0
	l.since, l.refused, l.sentRequests, l.sentTokens = c.sent, c.tokens, 0, 0
	l.next, l.grown, l.blind, l.sure = now.Add(quiet), false, false, false
}

// pace sets the pace. The other of the two allowances is not bound: which of them it was that a refusal was for, is a guess.
func (l *lesson) pace(rate float64) {
	l.rate = rate
	bound, free := &l.requests, &l.tokens
	if l.ofTokens {
		bound, free = free, bound
	}
	bound.rate, bound.size = rate, max(1, rate*learnedBurst.Seconds())
	free.rate = 0
}

// grow tries for more, after a while: the limits may have been raised, or be higher than they seemed.
func (l *lesson) grow(now time.Time) {
	step := l.step(now)
	if step == 0 {
		return
	}
	l.requests.fill(now)
	l.tokens.fill(now)
	l.pace(l.rate * math.Pow(l.faster, step.Seconds()))
	l.grown = true
	sent, _, earlier := l.units(charge{sentRequests: l.sentRequests, sentTokens: l.sentTokens})
	if l.measured && l.wasRaised(sent-earlier, now.Sub(l.since).Seconds()) {
		// More was taken than was ever allowed before. From here on it is learned anew, and what is left now is not known.
		l.measured, l.blind, l.faster, l.known = false, true, quickly, l.rate
		l.number++
		l.since, l.refused, l.sentRequests, l.sentTokens = now, 0, 0, 0
	}
}

// wasRaised tells whether so much was taken since the last refusal as the measured limit does not allow in that time.
func (l *lesson) wasRaised(least, passed float64) bool {
	more := 1.15 // than what was measured for a few seconds
	if l.sure {
		more = 1.04
	}
	return least > more*l.known*passed
}
