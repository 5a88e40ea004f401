package bench

import (
	"os/exec"
	"syscall"
)

// bindToThis has a process end when the thread that starts it does, and not by the
// signals of the terminal before it is told to.
func bindToThis(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
