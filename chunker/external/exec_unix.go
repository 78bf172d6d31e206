//go:build unix

package external

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
)

// executable refuses what can't be run, and what somebody else could have changed.
func executable(path string, info fs.FileInfo) error {
	if info.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("%s is not executable: chmod +x it", path)
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("%w: everybody on this machine may write %s (chmod o-w)", ErrForbidden, path)
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Uid != 0 && int(s.Uid) != os.Getuid() {
		return fmt.Errorf("%w: %s belongs to another user", ErrForbidden, path)
	}
	return nil
}

// ownGroup has the process killed together with what it started.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
}
