package chaos

import (
	"os/exec"
	"syscall"
)

// tie has the child die with the test.
func tie(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
