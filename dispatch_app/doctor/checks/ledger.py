"""The ledger: can orders be recorded, and is what was recorded sound?"""

from __future__ import annotations

import os
import shlex
import time

from ..case import Case
from ..table import ERROR, NAME, WARNING, Check, Finding, LookError
from . import needs
from .fixes import FREE_DISK, RESTART, mode_of, quoted

# Octets and inodes below which the ledger is at risk.
DISK_FREE, INODES_FREE = 16 << 20, 64
SKEW = 30.0  # seconds


def state_linked(case: Case) -> Finding | None:
    state = case.state.directory
    # systemd makes such a link itself where the user exists only while the service runs (systemd.exec(5), DynamicUser).
    if state is None or not state.is_symlink() or state.resolve().parent == state.parent / "private":
        return None
    # fstab(5) writes a space as \040.
    source, target = (str(path).replace(" ", "\\040") for path in (state.resolve(), state))
    where, line = quoted(state), shlex.quote(f"{source} {target} none bind 0 0")
    bind = f"printf '%s\\n' {line} >> /etc/fstab && mount {where}"
    replaced = f"([ ! -L {where} ] || (systemctl stop {NAME} && rm {where} && mkdir {where} && {bind}))"
    return Finding(f"{state} is a symbolic link to {state.resolve()}",
                   "systemd takes no link for a state directory, so the service does not start; a mount does as well.",
                   f"{replaced} && systemctl start {NAME}")  # fmt: skip


def state_read_only(case: Case) -> Finding | None:
    state, mount = case.state.directory, case.state.mount
    if state is None or not state.exists():
        return None
    if os.statvfs(mount).f_flag & os.ST_RDONLY:
        return Finding(f"{mount} is mounted read-only", "The ledger can't be written.",
                       f"mount -o remount,rw {shlex.quote(mount)} && {RESTART}")  # fmt: skip
    if case.host.may("-w", state):
        return None
    name, where = case.host.directive("User") or "root", quoted(state)
    seen = f"{state} is {mode_of(state)} of uid {state.stat().st_uid}"
    return Finding(seen, f"User {name} may not write the ledger.",
                   f"chown -R {shlex.quote(name)}: {where} && chmod 0700 {where} && {RESTART}")  # fmt: skip


def disk_full(case: Case) -> Finding | None:
    octets, inodes = case.state.disk
    if octets >= DISK_FREE and inodes >= INODES_FREE:
        return None
    return Finding(f"{case.state.mount} has {octets >> 10} KiB and {inodes} inodes left",
                   "The disk is full: orders can't be recorded, and wait.",
                   f"{FREE_DISK} && {RESTART}")  # fmt: skip


def ledger_damaged(case: Case) -> Finding | None:
    if case.host.foreign:
        raise LookError(needs.FOREIGN)
    if case.host.shares_ledger:
        return None
    problem, state = case.state.problem(), case.state.directory
    if problem is None or state is None:
        return None
    # A second run must leave the new ledger alone, which is another file.
    ledger = case.state.ledger
    inode = ledger.stat().st_ino if ledger and ledger.exists() else 0
    moved = f'systemctl stop {NAME} && mv ledger.db* "$(mktemp -d damaged.XXXXXX)"'
    aside = f'([ "$(stat -c %i ledger.db)" != {inode} ] || ({moved}))'
    return Finding(f"{ledger}: {problem}", "The ledger is damaged; a new one knows no order before it.",
                   f"cd {quoted(state)} && {aside} && systemctl start {NAME}")  # fmt: skip


def ledger_locked(case: Case) -> Finding | None:
    if case.host.foreign:
        raise LookError(needs.FOREIGN)
    if case.state.ledger is None or case.host.shares_ledger:
        return None
    before = case.state.lock()
    if before is None:
        return None
    time.sleep(0.5)  # a lock that comes and goes is none
    found = case.state.lock()
    if found != before:
        return None
    # By the time this is run, the number may belong to another process.
    holds = f"ls -l /proc/{found.pid}/fd | grep -qF {quoted(case.state.ledger)}"
    return Finding(f"process {found.pid} ({found.command}) holds the ledger's write lock",
                   "Orders can't be recorded, and wait, until that process lets go.",
                   f"{holds} && kill {found.pid}")  # fmt: skip


def clock_skew(case: Case) -> Finding | None:
    ahead = case.broker.clock
    if abs(ahead) <= SKEW:
        return None
    return Finding(f"this host's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the broker's",
                   "The clocks differ: times in ledger and logs mislead, and certificates may seem invalid.",
                   "timedatectl set-ntp true")  # fmt: skip


CHECKS = (
    Check("state-linked", "ledger", ERROR, "the ledger's directory is no symbolic link", state_linked, needs.UNIT),
    Check("state-read-only", "ledger", ERROR, "the ledger's directory can be written", state_read_only, needs.RUNS),
    Check("disk-full", "ledger", ERROR, "the disk has space", disk_full, needs.UNIT),
    Check("ledger-damaged", "ledger", ERROR, "the ledger is sound", ledger_damaged, needs.UNIT),
    Check("ledger-locked", "ledger", ERROR, "nobody else locks the ledger", ledger_locked, needs.UNIT),
)
# What only a login to the broker tells.
CLOCK = (Check("clock-skew", "ledger", WARNING, "the clock agrees with the broker's", clock_skew, needs.LOGIN),)
