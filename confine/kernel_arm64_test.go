package confine

import "golang.org/x/sys/unix"

const nrFstatat = unix.SYS_FSTATAT
