"""A host's PostgreSQL: where its packages put it, what it is, how it starts. For Python 3.9 and later."""

from __future__ import annotations

import pwd
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.server_files import File, RefusedError

USER = "postgres"
DEBIAN, RED_HAT = Path("/etc/postgresql"), Path("/var/lib/pgsql/data")
SETUP = Path("/usr/bin/postgresql-setup")  # of the RHEL family's package
LOGS = Path("/var/log/postgresql")
SETTLE_SECONDS = 30  # for a replica to reach its primary, and for a server to read its configuration
POLL_SECONDS = 0.1
_OURS = 16384  # the first number of what is not part of PostgreSQL itself (access/transam.h, FirstNormalObjectId)
_TELLING = re.compile(r"\b(FATAL|PANIC|ERROR|HINT|DETAIL):")
_REASON_LINES = 12


# Runs a command and returns its exit code, standard output and standard error, as AnsibleModule.run_command does.
Run = Callable[..., "tuple[int, str, str]"]


@dataclass(frozen=True)
class Cluster:
    """Where one server has its configuration, its data and its programs, and the name of its unit."""

    configuration: Path
    data: Path
    programs: Path
    service: str

    @property
    def standby(self) -> bool:
        """Whether it starts as a replica (PostgreSQL documentation, 27.2.2)."""
        return (self.data / "standby.signal").exists()

    @property
    def made(self) -> bool:
        """Whether there are data."""
        return (self.data / "PG_VERSION").exists()

    @property
    def databases(self) -> bool:
        """Whether there is a database that somebody has made; a server that does not run can't be asked."""
        return any(int(path.name) >= _OURS for path in self.data.glob("base/*") if path.name.isdigit())


def find_cluster() -> Cluster | None:
    """Return the host's server, None where none is installed. Raises RefusedError where there are several."""
    files = sorted(DEBIAN.glob("*/*/postgresql.conf"))
    if len(files) > 1:
        names = ", ".join(f"{file.parent.parent.name}/{file.parent.name}" for file in files)
        raise RefusedError(
            f"This host has several clusters of PostgreSQL ({names}), and which one is meant can't be told. Remove "
            "those that are not wanted: pg_dropcluster <version> <name>; nothing has changed."
        )
    for file in files:
        version, name = file.parent.parent.name, file.parent.name
        told = re.search(r"^\s*data_directory\s*=\s*'([^']*)'", file.read_text(errors="replace"), re.MULTILINE)
        data = Path(told[1]) if told else Path("/var/lib/postgresql", version, name)
        return Cluster(file.parent, data, Path("/usr/lib/postgresql", version, "bin"), f"postgresql@{version}-{name}")
    if SETUP.exists():
        return Cluster(RED_HAT, RED_HAT, Path("/usr/bin"), "postgresql")
    return None


def telling(text: str) -> str:
    """Return the lines of a log that say why a server did not start, or else its last ones."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [line for line in lines if _TELLING.search(line)] or lines
    return "\n".join(list(dict.fromkeys(found))[-_REASON_LINES:])


class Host:
    """The host this runs on, and its PostgreSQL."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.booted = Path("/run/systemd/system").is_dir()  # sd_booted(3)
        self.cluster = find_cluster()

    @property
    def running(self) -> bool:
        """Whether the server's unit is active."""
        unit = self.cluster and self.cluster.service
        return bool(unit and self.booted and self._run(["systemctl", "is-active", "--quiet", unit])[0] == 0)

    @property
    def _found(self) -> Cluster:
        if not self.cluster:
            raise RefusedError("This host has no PostgreSQL. Run playbooks/postgresql.yml, which installs it.")
        return self.cluster

    def refuse_other_role(self, primary: str, rebuild: bool) -> None:
        """Raise RefusedError where the server is a replica and is to be the primary, or the other way round.

        `primary` is the name of the one of which this one is to be a replica, "" where it is to be the primary.
        """
        cluster = self.cluster
        if not cluster or not cluster.made or (primary and rebuild):
            return
        if not primary and cluster.standby:
            raise RefusedError(
                "postgresql_primary names this host, and its PostgreSQL is a replica, which takes no writes. Name the "
                "primary, or have this one take its place: playbooks/promote.yml -e host=<its name>; nothing has "
                "changed."
            )
        if not primary and self._masked(cluster):
            raise RefusedError(
                "postgresql_primary names this host, and its PostgreSQL was taken out of service when another one took "
                "its place (playbooks/promote.yml). Set postgresql_primary to that one; nothing has changed."
            )
        if primary and not cluster.standby and cluster.databases:
            raise RefusedError(
                f"This host is to be a replica of {primary}, and its PostgreSQL is none: it has databases of its own, "
                "perhaps orders that no other server has. If it is the one that takes writes now, set "
                "postgresql_primary to it. If what it has is not wanted any more, run the play with -e "
                "postgresql_rebuild=<its name>, which copies the primary in its place; nothing has changed."
            )

    def _masked(self, cluster: Cluster) -> bool:
        return self._run(["systemctl", "is-enabled", cluster.service])[1].strip() == "masked"

    def sql(self, statement: str) -> str:
        """Return what the server answers, a line a row. Raises RefusedError."""
        words = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", statement]
        code, output, error = self._as_server(words)
        if code:
            raise RefusedError(f"PostgreSQL can't be asked on its socket; it says: {error.strip() or output.strip()}")
        return output.strip()

    def _as_server(self, words: list[str], secrets: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        return self._run(["runuser", "-u", USER, "--", *words], environ_update={"LC_ALL": "C.UTF-8", **(secrets or {})})

    def refuse_bad_settings(self, files: Iterable[File]) -> None:
        """Raise RefusedError where the server does not take these files of settings, as it would read them."""
        cluster = self._found
        if not cluster.made:
            return
        with tempfile.TemporaryDirectory(prefix="postgresql-check-") as directory:
            staged = Path(directory)
            (staged / "conf.d").mkdir()
            for path in [cluster.configuration / "postgresql.conf", *cluster.configuration.glob("conf.d/*.conf")]:
                shutil.copyfile(path, staged / path.relative_to(cluster.configuration))
            for file in files:
                copy = staged / file.path.relative_to(cluster.configuration)
                if file.content is None:
                    copy.unlink(missing_ok=True)
                else:
                    copy.write_bytes(file.content)
            owner = pwd.getpwnam(USER)
            for path in (staged, *staged.rglob("*")):
                shutil.chown(path, owner.pw_uid, owner.pw_gid)
            words = [f"{cluster.programs}/postgres", "-D", str(cluster.data)]
            # It reads everything, says one setting and ends.
            code, _, error = self._as_server([*words, "-c", f"config_file={staged}/postgresql.conf", "-C", "port"])
            if code:
                said = error.strip().replace(str(staged), str(cluster.configuration))
                raise RefusedError(
                    "PostgreSQL does not take its new settings. Correct postgresql_settings; nothing has changed. It "
                    f"says:\n{said}"
                )

    def reread(self) -> list[str]:
        """Have a running server read its configuration anew; return the settings that wait for a restart."""
        before = self.sql("SELECT pg_conf_load_time()")
        self._run(["systemctl", "reload", self._found.service])
        self._await(lambda: self.sql("SELECT pg_conf_load_time()") != before)
        return self.sql("SELECT name FROM pg_settings WHERE pending_restart ORDER BY 1").split()

    def restart(self, replica: bool) -> str:
        """Start the server, or restart it; return "" where it then is what it is to be, else why not."""
        cluster, sizes = self._found, {path: path.stat().st_size for path in self._logs()}
        self._run(["systemctl", "reset-failed", cluster.service])
        if self._run(["systemctl", "restart", cluster.service])[0] or not self.running:
            return self._reason(sizes) or f"nothing; see systemctl status {cluster.service}"
        wrong = self.out_of_role(replica)
        return f"{wrong}\n{self._reason(sizes)}".strip() if wrong else ""

    def out_of_role(self, replica: bool) -> str:
        """Return why a running server is not what it is to be, "" where it is; a replica may take a while."""
        if not replica:
            return "it is a replica" if self.sql("SELECT pg_is_in_recovery()") == "t" else ""
        streaming = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'"
        return "" if self._await(lambda: self.sql(streaming) == "1") else "it does not reach its primary"

    def _await(self, condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + SETTLE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _logs(self) -> list[Path]:
        return [*LOGS.glob("*.log"), *self._found.data.glob("log/*.log")]

    def _reason(self, sizes: Mapping[Path, int]) -> str:
        """Return what the server has logged beyond these sizes, or else its unit."""
        texts = []
        for path in self._logs():
            with path.open("rb") as log:
                log.seek(sizes.get(path, 0))
                texts.append(log.read().decode(errors="replace"))
        command = ["journalctl", "-u", self._found.service, "-o", "cat", "--no-pager", "-n", "20"]
        return telling("".join(texts)) or telling(self._run(command)[1])

    def copy_primary(self, where: Mapping[str, str], password: str) -> None:
        """Replace what the server has by a copy of the primary, from which it then goes on. Raises RefusedError.

        What it has goes only once the copy stands.
        """
        cluster = self._found
        if cluster.data.is_symlink() or cluster.data.is_mount():
            raise RefusedError(
                f"{cluster.data} is a link or a volume of its own, and a copy can't take its place. Mount the volume a "
                "directory higher; nothing has changed."
            )
        owner, copy = pwd.getpwnam(USER), cluster.data.with_name(f".{cluster.data.name}.copy")
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir(mode=0o700)
        shutil.chown(copy, owner.pw_uid, owner.pw_gid)
        source = " ".join(f"{name}={value}" for name, value in where.items())
        words = [f"{cluster.programs}/pg_basebackup", "-d", source, "-D", str(copy), "-X", "stream", "-c", "fast", "-w"]
        code, output, error = self._as_server(words, {"PGPASSWORD": password})
        if code:
            shutil.rmtree(copy, ignore_errors=True)
            raise RefusedError(
                f"The primary can't be copied from {where['host']}; what this host has is as it was. See that the "
                f"primary runs and lets this host in (playbooks/postgresql.yml, without --limit). pg_basebackup says:\n"
                f"{(error.strip() or output.strip())}"
            )
        signal = copy / "standby.signal"
        signal.touch(mode=0o600)
        shutil.chown(signal, owner.pw_uid, owner.pw_gid)
        self._run(["systemctl", "unmask", cluster.service])
        self._run(["systemctl", "stop", cluster.service])
        shutil.rmtree(cluster.data, ignore_errors=True)
        copy.rename(cluster.data)

    def stand_down(self) -> None:
        """Stop the server for good, after it has sent its replicas all it has."""
        self._run(["systemctl", "stop", self._found.service])
        if self.running:
            raise RefusedError("PostgreSQL does not stop. See systemctl status postgresql; the replica is as it was.")
        self._run(["systemctl", "mask", self._found.service])

    def promote(self) -> None:
        """Have a replica take writes. Raises RefusedError."""
        if self.sql(f"SELECT pg_promote(true, {SETTLE_SECONDS})") != "t" or self.out_of_role(False):
            raise RefusedError("PostgreSQL does not become a primary. Look at its log; pg_promote() has been called.")
