package external

import (
	"io/fs"
	"os/exec"
)

func executable(string, fs.FileInfo) error { return nil }

func ownGroup(*exec.Cmd) {}
