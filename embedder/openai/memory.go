package openai

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// memory is what the endpoint said of a model when it was asked last, so that a start while it is away needs to ask nothing.
type memory struct {
	// Of is the model, by name and endpoint.
	Of string `json:"of"`
	// MaxInput is the longest input in tokens, or 0.
	MaxInput int `json:"max_input"`
	// Specimens are the vectors of sameTexts by role; none if nobody compared.
	Specimens [][][]float32 `json:"specimens,omitempty"`
}

func (m *Model) memoryFile() string {
	sum := sha256.Sum256([]byte(m.name + " at " + m.where))
	return filepath.Join(m.cfg.Memory, fmt.Sprintf("%x.json", sum[:12]))
}

// recall reads what was kept; nil: nothing of use was.
func (m *Model) recall() *memory {
	if m.cfg.Memory == "" {
		return nil
	}
	text, err := os.ReadFile(m.memoryFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var kept memory
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil {
		m.cfg.Logger.Warn("what the embedding endpoint said before can't be read; it is asked again", "endpoint", m.where, "file", m.memoryFile(), "error", err)
		return nil
	}
	if kept.Of != m.name+" at "+m.where || !m.plausible(kept.Specimens) {
		return nil
	}
	return &kept
}

// plausible tells whether vectors may be what the model once made of sameTexts.
func (m *Model) plausible(specimens [][][]float32) bool {
	if len(specimens) == 0 {
		return true
	}
	for _, vectors := range specimens {
		if len(vectors) != len(sameTexts) {
			return false
		}
		for _, v := range vectors {
			if len(v) != m.dim {
				return false
			}
		}
	}
	return len(specimens) == len(specimenRoles)
}

// keep writes down what the endpoint has said. Where that fails a start while it is away has to wait for it, and nothing else is lost.
func (m *Model) keep() {
	if m.cfg.Memory == "" {
		return
	}
	m.keeping.Lock()
	defer m.keeping.Unlock()
	now := memory{Of: m.name + " at " + m.where, MaxInput: m.maxInput}
	if made := m.made.Load(); made != nil {
		now.Specimens = made[:]
	} else if before := m.recall(); before != nil {
		now.Specimens = before.Specimens
	}
	text, err := json.Marshal(now)
	if err == nil {
		err = os.MkdirAll(m.cfg.Memory, 0o755)
	}
	file := m.memoryFile()
	if err == nil {
		err = os.WriteFile(file+".new", text, 0o644)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		m.cfg.Logger.Warn("what the embedding endpoint says can't be kept for a start while it is away", "endpoint", m.where, "error", err)
	}
}
