"""A Python without what only POSIX has, as far as the standard library itself can do without.

Its folder in PYTHONPATH makes every interpreter load it first: the command's, its workers' and its
decoder's. What the Linux version of the standard library cannot run without (`os.waitpid`, the
system's own process starter) stays.
"""

import os
import signal
import subprocess
import sys

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posixshmem")
OS = (
    *("fork", "forkpty", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "fchmod"),
    *("getuid", "geteuid", "getgid", "getegid", "getpgid", "getpgrp", "killpg", "setsid", "chown"),
    *("lchown", "fchown", "mkfifo", "mknod", "statvfs", "fstatvfs", "sysconf", "posix_fadvise"),
    *("posix_fallocate", "getloadavg", "nice", "wait", "fdatasync", "sync"),
    *("O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_SYNC", "O_TMPFILE"),
)
SIGNAL = ("pthread_sigmask", "alarm", "setitimer", "SIGKILL", "SIGSTOP", "SIGALRM", "SIGHUP",
          "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "sigwait", "pthread_kill")  # fmt: skip

for module in MODULES:
    sys.modules[module] = None  # type: ignore[assignment]
for name in OS:
    if hasattr(os, name):
        delattr(os, name)
for name in SIGNAL:
    if hasattr(signal, name):
        delattr(signal, name)
subprocess.Popen.kill = subprocess.Popen.terminate  # type: ignore[method-assign]  # as on Windows
