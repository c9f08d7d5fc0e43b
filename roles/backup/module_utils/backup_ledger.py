"""The ledger of a host's own, and what is live there: how they are saved, and the ledger put back.

For Python 3.9 and later.
"""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from ansible.module_utils.app_disk import sync
from ansible.module_utils.app_releases import COMPLETE, live
from ansible.module_utils.backup_archive import LEDGER, extract, moment_name
from ansible.module_utils.backup_user import as_user, private_directory
from ansible.module_utils.server_files import File, RefusedError, place

STATE, CONFIGURATION, HOME = Path("/var/lib/dispatch"), Path("/etc/dispatch"), Path("/app")
COMMAND, SERVICE = Path("/usr/bin/dispatch"), "dispatch"
MARK = "last-backup"  # in STATE; dispatch_app/backupmark.py reads it
# Runs a command and returns its exit code, standard output and standard error, as AnsibleModule.run_command does.
Run = Callable[..., "tuple[int, str, str]"]

_EXAMPLES = 3  # of the orders that would be lost, to name
# The settings of Dispatch's own. Another one belongs to a hook, and nobody here knows whether it is a secret.
_OWN = re.compile(r"(AMQP|DISPATCH)_(?!.*(PASS|SECRET))[A-Z_]+")
_SETTING = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="(.*)"')
_WRONG = "the ledger has no orders: it has another schema than this version of the playbooks knows"


@dataclass(frozen=True)
class Comparison:
    """How many orders the saved ledger has, how many of them the host's lacks, and the other way round."""

    saved: int
    lacking: int
    surplus: int
    examples: tuple[str, ...] = ()  # ids of the surplus
    damage: str = ""  # why the host's ledger can't be read

    @property
    def settled(self) -> bool:
        """Whether the host's ledger has all that was saved."""
        return not self.lacking and not self.damage


def owner(path: Path) -> tuple[int, int]:
    """The user and the group that a file or a directory belongs to; root's where there is none."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0, 0
    return found.st_uid, found.st_gid


def settings() -> dict[str, str | None]:
    """The live settings by name. None stands for a value that may be a secret."""
    try:
        lines = (CONFIGURATION / "environment").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = [match.groups() for match in map(_SETTING.fullmatch, lines) if match]
    return {name: _shown(name, re.sub(r"\\(.)", r"\1", value)) for name, value in pairs}


def _shown(name: str, value: str) -> str | None:
    """A setting's value, where it is known to be no secret: a URL's query may hold a token, its login a password."""
    if not _OWN.fullmatch(name) or (name.endswith("_URL") and "@" in value):
        return None
    return value.partition("?")[0] if name.endswith("_URL") else value


def facts() -> dict[str, Any]:
    """What is live, for the manifest: the release, the artifact's SHA-256 and the settings."""
    current, artifact = live(HOME), ""
    if current:
        try:
            artifact = (current / COMPLETE).read_text(encoding="ascii").partition("\n")[0]
        except (OSError, UnicodeDecodeError):
            artifact = ""  # the release has been damaged since
    return {"release": current.name if current else "", "artifact_sha256": artifact, "settings": settings()}


def shared() -> str:
    """The URL of the database that has the ledger of the fleet, without a login; "" where the host has its own."""
    url = settings().get("DISPATCH_LEDGER") or ""
    return f"{urlsplit(url).netloc.rpartition('@')[2]}{urlsplit(url).path}" if url else ""


def save(run: Run, target: Path) -> int:
    """Copy the ledger, while it is in use, to a file in a directory of its owner's; return the number of orders.

    Raises RefusedError.
    """
    if not COMMAND.exists():
        raise RefusedError(
            f"{STATE / LEDGER} is there, and {COMMAND}, which copies it, is not. Run playbooks/dispatch.yml first, or "
            f"move the ledger away if it is not wanted any more: mv {STATE / LEDGER} /root/"
        )
    code, output, error = run([str(COMMAND), "ledger", "backup", str(target)])
    told = re.match(r"([0-9]+) orders", output)
    if code or not told:
        raise RefusedError(f"dispatch ledger backup failed; it says: {error.strip() or output.strip()}")
    return int(told[1])


def compare(own: Path, saved: Path) -> Comparison:
    """Compare the host's ledger with one that was saved. Raises sqlite3.Error where the saved one is no use."""
    with closing(_opened(saved)) as db:
        theirs = _orders(db)
        if not theirs:
            raise sqlite3.DatabaseError(_WRONG)
        (count,) = db.execute(f"SELECT count(*) FROM {theirs}").fetchone()  # noqa: S608 - the name is ours
    if not own.exists():
        return Comparison(count, count, 0)
    try:
        with closing(_opened(own)) as db:
            problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise sqlite3.DatabaseError(problem)
            ours = _orders(db)
            if not ours:
                return Comparison(count, count, 0)  # the service has not come to make it
            db.execute("ATTACH ? AS saved", (_uri(saved),))
            ours, theirs = f"main.{ours}", f"saved.{theirs}"
            without = "SELECT {} FROM {} WHERE id NOT IN (SELECT id FROM {})"
            (lacking,) = db.execute(without.format("count(*)", theirs, ours)).fetchone()
            (surplus,) = db.execute(without.format("count(*)", ours, theirs)).fetchone()
            few = db.execute(f"{without.format('id', ours, theirs)} ORDER BY seq DESC LIMIT {_EXAMPLES}")
            return Comparison(count, lacking, surplus, tuple(row[0] for row in few))
    except sqlite3.Error as error:
        return Comparison(count, count, 0, damage=str(error))


def _orders(db: sqlite3.Connection) -> str:
    """The name of what has all orders: of the view, or of the one table of an earlier release's ledger; or ""."""
    there = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    return next((name for name in ("all_orders", "orders") if name in there), "")


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(_uri(path), uri=True, isolation_level=None, timeout=10)


def _uri(path: Path) -> str:
    return f"file:{quote(str(path))}?mode=ro"


def _settle_log(own: Path) -> None:
    """Write what stands in a ledger's log back into it, so that the file holds all orders. Raises sqlite3.Error."""
    with closing(sqlite3.connect(f"file:{quote(str(own))}?mode=rw", uri=True, isolation_level=None)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class Restoration:
    """A host whose ledger is to be that of a backup."""

    def __init__(self, run: Run, archive: Path, manifest: Mapping[str, Any], overwrite: bool, host: str) -> None:
        """Prepare; `overwrite` says whether orders that the backup lacks may be lost, `host` is the host's name."""
        self._run, self._archive, self._manifest = run, archive, manifest
        self._overwrite, self._host = overwrite, host
        self._ledger = STATE / LEDGER

    def settle(self, check_mode: bool) -> list[str]:
        """Put the ledger back, where the host's lacks what was saved; return what was done. Raises RefusedError."""
        self._refuse_other_kind()
        user = owner(self._ledger) if self._ledger.exists() else owner(STATE)
        with private_directory(user) as place:
            saved = place / LEDGER
            extract(self._archive, LEDGER, saved, user)
            found = self._compared(saved, user)
            if found.settled:
                return []
            done = [f"put back the ledger with its {found.saved} orders"]
            if check_mode:
                return done
            ran = self._stop()
            try:
                # Orders may have been dispatched until it had stopped.
                found = self._compared(saved, user)
                before = self._replace(user)
            except BaseException:
                self._start(ran)
                raise
            if why := self._start(ran):
                self._give_back(before)
                raise RefusedError(
                    f"Dispatch did not start with the restored ledger, and has back what it had before. systemd says: "
                    f"{why}; {self._start(ran) or 'it runs again'}"
                )
        if before and (found.surplus or found.damage):
            done.append(f"kept the ledger that was there as {before}")
        elif before:  # all that it has is in the other one, too
            for path in STATE.glob(f"{before.name}*"):
                path.unlink()
        return done

    def _refuse_other_kind(self) -> None:
        """Raise RefusedError where a ledger of the host's own would be of no use, or none can be told."""
        if where := shared():
            raise RefusedError(
                f"The backup holds a ledger of this host's own, and its settings name the fleet's at {where}. Bring "
                f"its orders there: extract {LEDGER} from the backup {self._manifest['name']} and run `dispatch ledger "
                "import`; nothing has changed."
            )
        for path, kind in ((STATE, stat.S_ISDIR), (self._ledger, stat.S_ISREG)):
            if path.is_symlink() or (path.exists() and not kind(path.lstat().st_mode)):
                raise RefusedError(
                    f"{path} is a link or another kind of file, and no ledger. See where it leads, and put it in its "
                    "place first; nothing has changed."
                )

    def _compared(self, saved: Path, user: tuple[int, int]) -> Comparison:
        """How the ledgers differ. Raises RefusedError where orders would be lost for which nobody has given leave."""
        try:
            told = as_user(user, lambda: vars(compare(self._ledger, saved)))
        except RefusedError as refused:
            raise RefusedError(
                f"The ledger in the backup {self._manifest['name']} can't be used: {refused}. Name another one by -e "
                "backup_moment=<its name>; nothing has changed."
            ) from refused
        found = Comparison(**{**told, "examples": tuple(told["examples"])})
        if not found.settled and (found.surplus or found.damage) and not self._overwrite:
            raise RefusedError(self._loss(found))
        return found

    def _loss(self, found: Comparison) -> str:
        remedy = (
            f"If they may be lost, name this host: -e backup_overwrite={shlex.quote(self._host)}, which keeps a copy "
            "of them; nothing has changed."
        )
        if found.damage:
            return (
                f"The ledger {self._ledger} can't be read ({found.damage}), so whether it has orders that the backup "
                f"{self._manifest['name']} lacks can't be told. {remedy}"
            )
        return (
            f"The ledger {self._ledger} has {found.surplus} orders that the backup {self._manifest['name']} lacks, "
            f"such as {', '.join(found.examples)}, and lacks {found.lacking} of its {found.saved}. {remedy}"
        )

    def _stop(self) -> bool:
        """Stop Dispatch; return whether it ran, or was about to."""
        state = self._run(["systemctl", "is-active", SERVICE])[1].strip()
        if state in ("inactive", "failed", "unknown", ""):
            return False
        code, _, error = self._run(["systemctl", "stop", SERVICE])
        if code:
            raise RefusedError(f"Dispatch can't be stopped, so its ledger is as it was: {error.strip()}")
        return True

    def _start(self, ran: bool) -> str:
        """Start Dispatch where it ran; return why it does not run then."""
        if not ran:
            return ""
        # Its unit is of the type notify, so systemd answers once it has opened its ledger.
        code, _, error = self._run(["systemctl", "start", SERVICE])
        return error.strip() or "nothing" if code else ""

    def _replace(self, user: tuple[int, int]) -> Path | None:
        """Put the saved ledger in the place of the host's; return where that is now, None where there was none."""
        before = None
        if not STATE.exists():
            STATE.mkdir(mode=0o700)  # systemd makes it its service's at the start (systemd.exec(5), StateDirectory=)
            sync(STATE.parent)
        staged = STATE / f".{LEDGER}.restored"
        staged.unlink(missing_ok=True)
        extract(self._archive, LEDGER, staged, user)
        if self._ledger.exists():
            before = STATE / f"{LEDGER}.before-{moment_name(time.time())}"
            self._keep(user, before)
        os.replace(staged, self._ledger)  # noqa: PTH105 - as rename(2) does it, in one step
        sync(STATE)
        return before

    def _keep(self, user: tuple[int, int], before: Path) -> None:
        """Keep the host's ledger under another name; until the other one has its place, it stays under its own, too."""
        with suppress(RefusedError):  # where it is damaged, its log belongs to what is kept
            as_user(user, lambda: _settle_log(self._ledger))
        for suffix in ("-wal", "-shm"):  # a log of another ledger must not come to this one
            log = self._ledger.with_name(f"{LEDGER}{suffix}")
            if log.exists():
                log.rename(before.with_name(f"{before.name}{suffix}"))
        os.link(self._ledger, before, follow_symlinks=False)

    def _give_back(self, before: Path | None) -> None:
        self._run(["systemctl", "stop", SERVICE])
        for suffix in ("-wal", "-shm"):
            self._ledger.with_name(f"{LEDGER}{suffix}").unlink(missing_ok=True)
            if before and before.with_name(f"{before.name}{suffix}").exists():
                before.with_name(f"{before.name}{suffix}").rename(self._ledger.with_name(f"{LEDGER}{suffix}"))
        if before:
            before.replace(self._ledger)
        else:
            self._ledger.unlink(missing_ok=True)
        sync(STATE)


def marked() -> float:
    """When the ledger's last backup was taken, by the mark on the host; 0.0 where there is none."""
    try:
        return float(int((STATE / MARK).read_text()))
    except (OSError, ValueError):
        return 0.0


def mark(moment: float, check_mode: bool) -> bool:
    """Leave the mark that a backup of that moment has arrived, unless a later one has; return whether it changes."""
    if not STATE.is_dir() or marked() >= int(moment):
        return False
    if not check_mode:
        place(File(STATE / MARK, f"{moment:.0f}\n".encode(), 0o644))
    return True
