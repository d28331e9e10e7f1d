"""What takes rights away from the engine's child process, on Linux and without root. Runs inside that process.

llama.cpp is native code that reads a stranger's file and strangers' words. Two steps, because they must come at
different times:

    seclude(network=False)         before any thread runs: no core dumps, no debuggers, no new rights, no network
    confine(readable, writable)    before the model is read: no files but these, no new programs, no files written

Each guard that this kernel or this system does not have is left out and named; none of them is a condition. Linux's
documents: Documentation/userspace-api/landlock.rst, no_new_privs.rst; man 2 unshare; man 3 seccomp_init.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000

# Landlock's system calls have the same numbers on every architecture.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION_ONLY, _BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_SOCK, _TRUNCATE, _IOCTL = 1 << 9, 1 << 14, 1 << 15
_RIGHTS_OF = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_NETWORK_SINCE, _SCOPES_SINCE = 4, 6
_BOTH = 3  # bind and connect; abstract sockets and signals

_READ = _READ_FILE | _READ_DIR
_SYSTEM = ("/sys/devices/system", "/proc/cpuinfo", "/proc/meminfo", "/dev/null", "/dev/urandom", "/dev/zero")
"""What the runtime looks at to know its processors and memory."""

_ALLOW, _EPERM = 0x7FFF0000, 0x00050000 | errno.EPERM
_TSYNC, _SPECULATION, _NOT_EQUAL = 4, 7, 1
_FORBIDDEN = [
    "execve",
    "execveat",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_getfd",
    "kcmp",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "keyctl",
    "add_key",
    "request_key",
    "mount",
    "umount2",
    "move_mount",
    "open_tree",
    "fsopen",
    "pivot_root",
    "chroot",
    "setns",
    "unshare",
    "open_by_handle_at",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "reboot",
    "swapon",
    "swapoff",
    "settimeofday",
    "clock_settime",
    "sethostname",
    "setdomainname",
    "personality",
    "quotactl",
    "acct",
    "syslog",
]
"""System calls that no model needs."""


@dataclass(frozen=True, slots=True)
class Guards:
    """Which guards hold, and which this system lacks."""

    held: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()

    def __add__(self, other: Guards) -> Guards:
        return Guards(self.held + other.held, self.lacking + other.lacking)

    def sentence(self) -> str:
        """One line for a status."""
        if not self.held and not self.lacking:
            return "The engine runs with all the rights of this user."
        held = ", ".join(self.held) or "nothing"
        return f"The engine is confined: {held}." + (
            f" Missing here: {', '.join(self.lacking)}." if self.lacking else ""
        )


class _Lacking(Exception):
    """This system does not have that guard."""


def seclude(*, network: bool) -> Guards:
    """Before any thread is started and any library loaded. `network=False` takes the network away."""
    if sys.platform == "win32":
        return Guards(lacking=("confinement on Windows",))
    guards = _try("no core dumps", _no_core)
    if sys.platform != "linux":
        return guards + Guards(lacking=("landlock, seccomp and namespaces, which are Linux's",))
    if not network:
        guards += _try("no network", _no_network)
    return guards + _try("no debugger", _not_dumpable) + _try("no new privileges", _no_new_rights)


def confine(readable: Iterable[Path], home: Path | None, *, gpu: bool, network: bool) -> Guards:
    """Before the model is read. `home` is the one directory in which a socket may be made.

    With `gpu` everything may be read, since drivers load libraries late and talk to many devices; what may be written
    stays bounded.
    """
    if sys.platform != "linux":
        return Guards()
    guards = Guards() if gpu else _try("no files written", _no_writing)
    readable = tuple(readable)
    guards += _try("system calls by seccomp", lambda: _seccomp(network=network))  # first: its library is a file, too
    return guards + _try("files by landlock", lambda: _landlock(readable, home, gpu=gpu, network=network))


def _try(name: str, step: Callable[[], None]) -> Guards:
    try:
        step()
    except (OSError, _Lacking, AttributeError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error) or "not here"
        return Guards(lacking=(f"{name} ({why})",))
    return Guards(held=(name,))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


# -- the first step --------------------------------------------------------------------------------------------------


def _no_core() -> None:
    """A dump of this process would hold what people wrote."""
    import resource  # Windows has none

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _not_dumpable() -> None:
    """Neither debuggers of this user nor /proc/PID/mem read its memory."""
    _checked(_libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def _no_new_rights() -> None:
    _checked(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _no_network() -> None:
    """A network of its own in which there is nothing. Unix sockets are files and go on working.

    Without root this takes a user namespace, in which the same ids are kept; as root it must not be one, or other
    users' model files would be out of reach.
    """
    libc, uid, gid = _libc(), os.geteuid(), os.getegid()
    if uid == 0:
        _checked(libc.unshare(_CLONE_NEWNET))
        return
    _checked(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


# -- the second step -------------------------------------------------------------------------------------------------


def _no_writing() -> None:
    """No regular file may grow, wherever it is: what people wrote cannot get onto the disk."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _landlock(readable: Iterable[Path], home: Path | None, *, gpu: bool, network: bool) -> None:
    libc = _libc()
    version = libc.syscall(_CREATE, None, 0, _VERSION_ONLY)
    if version < 1:
        raise _Lacking("this kernel has none")
    rights = _RIGHTS_OF[min(version, max(_RIGHTS_OF))]
    if gpu:
        rights &= ~_IOCTL
    tcp = _BOTH if version >= _NETWORK_SINCE and not network else 0
    scopes = _BOTH if version >= _SCOPES_SINCE else 0
    size = 24 if version >= _SCOPES_SINCE else 16 if version >= _NETWORK_SINCE else 8
    attributes = struct.pack("QQQ", rights, tcp, scopes)[:size]
    ruleset = _checked(libc.syscall(_CREATE, attributes, size, 0))
    try:
        for path in [*readable, *map(Path, _SYSTEM), *([Path("/")] if gpu else [])]:
            _allow(libc, ruleset, path, (_READ | (_EXECUTE if gpu else 0)) & rights)
        if gpu:
            _allow(libc, ruleset, Path("/dev"), (_READ | _WRITE_FILE | _TRUNCATE) & rights)
        _allow(libc, ruleset, Path("/dev/null"), (_READ_FILE | _WRITE_FILE) & rights)
        if home is not None:
            _allow(libc, ruleset, home, (_READ | _MAKE_SOCK | _REMOVE_FILE | _WRITE_FILE) & rights)
            _allow(libc, ruleset, home.parent, _REMOVE_DIR)  # it clears its own, empty, directory away at the end
        _checked(libc.syscall(_RESTRICT, ruleset, 0))
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not path.is_dir():
            rights &= _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
        rule = struct.pack("=Qi", rights, descriptor)
        _checked(libc.syscall(_ADD, ruleset, _BENEATH, rule, 0))
    finally:
        os.close(descriptor)


class _Compared(ctypes.Structure):
    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


def _seccomp(*, network: bool) -> None:
    """Through libseccomp, which knows each architecture's numbers; nearly every Linux has it."""
    try:
        lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError as error:
        raise _Lacking("libseccomp is not installed") from error
    lib.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(_ALLOW)))
    if not context.value:
        raise _Lacking("libseccomp does not work here")
    try:
        for name in _FORBIDDEN:
            number = lib.seccomp_syscall_resolve_name(name.encode())
            if number >= 0:
                lib.seccomp_rule_add_array(context, ctypes.c_uint32(_EPERM), number, 0, None)
        if not network:
            number = lib.seccomp_syscall_resolve_name(b"socket")
            other = _Compared(0, _NOT_EQUAL, 1, 0)  # any family but AF_UNIX
            lib.seccomp_rule_add_array(context, ctypes.c_uint32(_EPERM), number, 1, ctypes.byref(other))
        lib.seccomp_attr_set(context, _TSYNC, ctypes.c_uint32(1))
        # Kernels before 5.16 slow every process with a filter down, against guesses about memory within the process.
        lib.seccomp_attr_set(context, _SPECULATION, ctypes.c_uint32(1))
        failed = lib.seccomp_load(context)
        if failed:
            raise OSError(-failed, os.strerror(-failed))
    finally:
        lib.seccomp_release(context)
