"""One of Prometheus' programs on a host: checks its configuration, runs it, and tells whether it took the new one."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from http.client import HTTPException
from pathlib import Path

from ansible.module_utils.server_files import File, RefusedError

READY_SECONDS = 60  # until it answers; a large database of samples is read first
_ASK_SECONDS, _LOOK = 5, 0.2  # for one answer, and between two looks

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]


class Host:
    """The program whose unit is `service`, and which answers at `url`, its base URL."""

    def __init__(self, run: Run, service: str, url: str) -> None:
        self._run, self._service, self._url = run, service, url
        self.booted = Path("/run/systemd/system").is_dir()  # sd_booted(3)

    @property
    def running(self) -> bool:
        """Whether its unit is active."""
        return self.booted and self._run(["systemctl", "is-active", "--quiet", self._service])[0] == 0

    def refuse_bad_files(self, check: Sequence[str], main: Path, files: Iterable[File]) -> None:
        """Raise RefusedError where a tool refuses `main`, which refers to the other files below its directory.

        `check` is the tool's command line, without the path.
        """
        if not check or not shutil.which(check[0]):
            return  # the package that brings it is not installed yet
        root = main.parent
        with tempfile.TemporaryDirectory() as staged:
            for file in files:
                path = Path(staged) / file.path.relative_to(root)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.content or b"")
            code, out, err = self._run([*check, str(Path(staged) / main.name)])
        if code:
            said = f"{out}\n{err}".strip().replace(staged, str(root))
            raise RefusedError(f"{check[0]} refuses what {self._service} is to run with; nothing has changed:\n{said}")

    def restart(self) -> str:
        """Start it, or stop it and start it again; return "" where it answers then, else why not."""
        since = time.time()
        self._run(["systemctl", "reset-failed", self._service])
        if self._run(["systemctl", "restart", self._service])[0]:
            return self._journal(since)
        deadline = time.monotonic() + READY_SECONDS
        while _refused(metrics := self._metrics()) or not metrics:
            if not self.running or time.monotonic() > deadline:
                return self._journal(since)
            time.sleep(_LOOK)
        return ""

    def reload(self) -> str:
        """Have it read its files anew; return "" where it took them, else why not."""
        since, before = time.time(), self._metrics()
        self._run(["systemctl", "reload", self._service])
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            metrics = self._metrics()
            if _taken(metrics) > _taken(before):
                return ""
            if _refused(metrics) and not _refused(before):
                break
            time.sleep(_LOOK)
        return self._journal(since)

    def _metrics(self) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self._url}/metrics", timeout=_ASK_SECONDS) as answer:
                return str(answer.read().decode("utf-8", "replace"))
        except (OSError, HTTPException):
            return ""

    def _journal(self, since: float) -> str:
        command = ["journalctl", "--unit", self._service, "--since", f"@{since:.0f}", "--output", "cat", "--no-pager"]
        _, out, _ = self._run([*command, "--lines", "15"])
        return out.strip() or f"nothing; see systemctl status {self._service}"


def _refused(metrics: str) -> bool:
    """Whether a program has not taken its configuration, or not yet, by its metrics."""
    return bool(re.search(r"^\w+_config_last_reload_successful 0$", metrics, re.MULTILINE))


def _taken(metrics: str) -> float:
    """When the configuration was last taken, in seconds since 1970, by a program's metrics; 0 where it says nothing."""
    found = re.search(r"^\w+_config_last_reload_success_timestamp_seconds (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else 0.0
