package embedder

import (
	"fmt"
	"strings"
	"time"

	"github.com/liverag/liverag/internal/spell"
)

// State is what a provider is doing for us.
type State string

// The states of a provider.
const (
	// Ready: requests go out as they come.
	Ready State = "ready"
	// Held: there is work, and it waits for the provider's allowance.
	Held State = "held"
	// Paused: what may be spent is spent.
	Paused State = "paused"
	// Down: it does not answer, or answers with errors only. It is tried now and then.
	Down State = "down"
	// Refused: it answers, and refuses us whatever we send: a wrong key, an account without money, a model that it does not have. It is tried now and then.
	Refused State = "refused"
)

// Provider is how it stands with one endpoint of a model.
type Provider struct {
	// Name is the endpoint's, for people.
	Name  string `json:"name"`
	State State  `json:"state"`
	// Since is when State began, in UTC; never zero.
	Since time.Time `json:"since"`
	// NextTry is when it is tried again; zero where State is Ready.
	NextTry time.Time `json:"next_try,omitzero"`
	// Detail says why, for people; empty where State is Ready.
	Detail string `json:"detail,omitempty"`
	// RPM and TPM are requests and tokens a minute that are kept to; 0: no limit is known. Source is who said so: "settings", "provider" (its headers, or its refusals), or
	// "learned" where neither did and it was found out by being refused.
	RPM    int    `json:"rpm,omitempty"`
	TPM    int    `json:"tpm,omitempty"`
	Source string `json:"source,omitempty"`
	// Concurrency is how many requests may be in flight at once, and InFlight how many are.
	Concurrency int `json:"concurrency"`
	InFlight    int `json:"in_flight"`
	// Requests are all that were sent. Throttled were refused because too much was asked (429), Failed ended without vectors for any other reason.
	Requests  int64 `json:"requests"`
	Throttled int64 `json:"throttled"`
	Failed    int64 `json:"failed"`
	// Tokens are those charged, by the provider's own count where it tells, else by ours; TokensRetried were sent in vain, and sent again.
	Tokens        int64 `json:"tokens"`
	TokensRetried int64 `json:"tokens_retried"`
	// RequestsLastMinute and TokensLastMinute are those of the last minute, to be held against RPM and TPM.
	RequestsLastMinute int64 `json:"requests_last_minute"`
	TokensLastMinute   int64 `json:"tokens_last_minute"`
	// HeldFor is for how long, in all, work had to wait for the allowance.
	HeldFor time.Duration `json:"-"`
}

// Away tells that it is not to be counted on for now: it does not answer, or refuses us.
func (p Provider) Away() bool { return p.State == Down || p.State == Refused }

// Trouble says for people what keeps the endpoint from taking what there is for it; empty where State is Ready.
func (p Provider) Trouble() string {
	does := ""
	switch p.State {
	case "", Ready:
		return ""
	case Held:
		does = "holds us back"
	case Down:
		does = "is down"
	case Refused:
		does = "refuses us"
	default: // what may be spent is for us to change, not for the provider
		return p.Detail
	}
	return fmt.Sprintf("the provider %s %s: %s", p.Name, does, p.Detail)
}

// Limits says for people what is kept to, and who said so; empty where no limit is known.
func (p Provider) Limits() string {
	var limits []string
	if p.RPM > 0 {
		limits = append(limits, spell.Thousands(p.RPM)+" RPM")
	}
	if p.TPM > 0 {
		limits = append(limits, spell.Thousands(p.TPM)+" TPM")
	}
	if len(limits) == 0 {
		return ""
	}
	text := strings.Join(limits, " and ")
	switch p.Source {
	case "settings":
		text += ", by the settings"
	case "provider":
		text += ", by its own word"
	case "learned":
		text += ", found out by being refused"
	}
	return text
}
