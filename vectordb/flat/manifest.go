package flat

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/liverag/liverag/vectordb"
)

// The manifest says what a generation consists of. It is replaced whole, by renaming, and is small: everything that grows is in segments and logs.
//
//	magic "LIVEMAN\x00", format version u32, length u32, CRC-32C u32, and so many bytes of JSON
const (
	manifestName       = "MANIFEST"
	manifestMagic      = "LIVEMAN\x00"
	manifestHeaderSize = 20
)

type manifest struct {
	Generation vectordb.Generation `json:"generation"`
	// Sequence is the last write that is in the segments; the logs from number Log on hold the later ones.
	Sequence uint64 `json:"sequence"`
	Log      uint64 `json:"log"`
	// Counts holds the number of the file with the terms' counts as of Sequence; 0 if there is none.
	Counts uint64 `json:"counts,omitempty"`
	// Next is a number above that of every file.
	Next       uint64          `json:"next"`
	Checkpoint map[int32]int64 `json:"checkpoint,omitempty"`
	Documents  int             `json:"documents"`
	Chunks     int             `json:"chunks"`
	Tokens     int64           `json:"tokens"`
	// Segments are from old to new.
	Segments []manifestSegment `json:"segments,omitempty"`
}

type manifestSegment struct {
	Number uint64 `json:"number"`
	// Dead is a bit for each row, least significant first, that says whether it was replaced by a write up to Sequence.
	Dead []byte `json:"dead,omitempty"`
}

func writeManifest(fs fileSystem, dir string, m *manifest) error {
	payload, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	b := append(make([]byte, 0, manifestHeaderSize+len(payload)), manifestMagic...)
	b = binary.LittleEndian.AppendUint32(b, formatVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, checksum(payload))
	b = append(b, payload...)
	if err := writeFile(fs, dir, manifestName, b); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// writeFile puts a file with that content in place, durably and in one step.
func writeFile(fs fileSystem, dir, name string, content []byte) error {
	temporary := filepath.Join(dir, name+".tmp")
	f, err := fs.Open(temporary, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = fs.Rename(temporary, filepath.Join(dir, name))
	}
	if err != nil {
		_ = fs.Remove(temporary)
		return err
	}
	return fs.SyncDir(dir)
}

func readManifest(dir string) (*manifest, error) {
	path := filepath.Join(dir, manifestName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, corruptf(path, "it is missing") // a generation gets its name when it is whole
	}
	if err != nil {
		return nil, fmt.Errorf("open manifest: %w", err)
	}
	if len(b) < manifestHeaderSize || string(b[:8]) != manifestMagic {
		return nil, corruptf(path, "not a manifest")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != formatVersion {
		return nil, formatf(path, v)
	}
	payload := b[manifestHeaderSize:]
	if uint64(len(payload)) != uint64(binary.LittleEndian.Uint32(b[12:])) || checksum(payload) != binary.LittleEndian.Uint32(b[16:]) {
		return nil, corruptf(path, "it is damaged")
	}
	m := &manifest{}
	if err := json.Unmarshal(payload, m); err != nil {
		return nil, corruptf(path, "%v", err)
	}
	if m.Generation.Check() != nil {
		return nil, corruptf(path, "it describes no generation")
	}
	return m, nil
}
