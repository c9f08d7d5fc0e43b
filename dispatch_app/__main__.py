"""The command line: `dispatch run|check|doctor|drain|publish|move|orders|dead|ledger`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import __version__
from . import settings as configuration
from .arguments import moment, number, seconds
from .moments import iso
from .printable import escaped, to_json

EX_DATAERR, EX_UNAVAILABLE, EX_IOERR, EX_CONFIG = 65, 69, 74, 78  # sysexits(3)
# No restart mends a damaged ledger or bad settings: the role has systemd leave the service stopped after these.
FATAL = (EX_DATAERR, EX_CONFIG)


def version(args: argparse.Namespace) -> int:
    """Print the version, or all that tells this code from other code."""
    from .version import facts

    print(to_json(facts()) if args.json else f"dispatch {__version__}")
    return 0


def run(_: argparse.Namespace) -> int:
    """Consume orders until SIGTERM or SIGINT."""
    from . import effects, ledgers, logs, service, systemd

    settings, directory = configuration.load(os.environ), configuration.state_directory(os.environ)
    logs.setup(settings.log_level)
    # Checking a large ledger takes a while; EXTEND_TIMEOUT_USEC= allows ten minutes (sd_notify(3)).
    systemd.Notifier().send("STATUS=checking the ledger", "EXTEND_TIMEOUT_USEC=600000000")
    effect = effects.configured(settings)
    code = service.Service(settings, ledgers.opened(settings, directory), effect, directory).run()
    logging.shutdown()
    # The interpreter would wait for a thread that is still looking up a host name, however long that takes.
    os._exit(code)


def check(_: argparse.Namespace) -> int:
    """Try settings, hook, network, login, permissions, topology, ledger; change nothing."""
    from . import effects, tracing
    from .check import check, check_ledger, unreachable

    settings = configuration.load(os.environ)
    if effect := effects.configured(settings):
        effect.close()
    if tracer := tracing.configured(settings):
        tracer.close()
    if settings.webhook and (why := unreachable(settings.webhook.url)):
        print(f"note: {settings.webhook} can't be reached now ({escaped(why)}); orders are held until it can.")
    if settings.otlp and (why := unreachable(settings.otlp.url)):
        print(f"note: {settings.otlp.url} can't be reached now ({escaped(why)}); spans are dropped until it can.")
    failures = []
    for host in settings.hosts:
        failure, missing, away = check(settings, host)
        if missing:
            print(f"note: run has still to declare {', '.join(missing)}.")
        if away:
            print(f"note: {', '.join(away)} can't be used while the node they live on is down; start it, or see "
                  "playbooks/quorum.yml. Orders are consumed, and what belongs there is held.")  # fmt: skip
        if failure:
            print(f"failed: {escaped(str(failure))}.", file=sys.stderr)
            failures.append(failure)
        else:
            print(f"ok: {settings.url(host)} can be reached, and {settings.queue} consumed.")
    # All hosts belong to one broker, so one that works is enough to run.
    code = failures[0].code if len(failures) == len(settings.hosts) else 0
    if settings.ledger:
        failure = check_ledger(settings.ledger)
        if failure:
            print(f"failed: {escaped(str(failure))}.", file=sys.stderr)
            return code or failure.code
        print(f"ok: the ledger at {settings.ledger} can be written, and is as this release needs it.")
    return code


def doctor(args: argparse.Namespace) -> int:
    """Tell what is wrong with Dispatch on this host and what mends it; change nothing."""
    from .doctor import advisories
    from .doctor.examine import EX_NOPERM, show

    if os.geteuid() != 0:
        print("failed: the doctor reads what root alone may read; run it as root.", file=sys.stderr)
        return EX_NOPERM
    try:
        records = advisories.read(args.advisories) if args.advisories else []
    except advisories.AdvisoriesError as error:
        print(f"failed: {error}.", file=sys.stderr)
        return EX_DATAERR
    return show(args.json, records)


def drain(args: argparse.Namespace) -> int:
    """Wait until no order is left on the broker, before this host is pointed at another one."""
    from .drain import UncountableError, drain, in_hand

    settings = configuration.load(os.environ)
    try:
        left = _connected(
            settings, lambda parameters: drain(settings, parameters, args.timeout, lambda: in_hand(settings))
        )
    except UncountableError as error:
        print(f"failed: {error}.", file=sys.stderr)
        return 1
    if left:
        print(f"{left} messages are left after {args.timeout:g} s; see that a consumer runs", file=sys.stderr)
        return 1
    print(f"{settings.queue} is empty, and no order is in hand here or waits to be tried again")
    return 0


def publish(args: argparse.Namespace) -> int:
    """Publish orders as payment does, and report how many no queue has taken."""
    from .publish import bodies, publish

    settings = configuration.load(os.environ)
    taken, returned = _connected(
        settings, lambda parameters: publish(settings, parameters, bodies(args.count, args.file), args.interval)
    )
    print(f"{taken} orders published to {settings.exchange} with key {settings.routing_key}")
    if returned:
        print(f"{returned} orders came back, because no queue is bound there; start dispatch first", file=sys.stderr)
    return 1 if returned else 0


def move(args: argparse.Namespace) -> int:
    """Put what waits in another queue into the order queue."""
    from .move import move

    settings = configuration.load(os.environ)
    count = _connected(settings, lambda parameters: move(settings, parameters, args.queue))
    print(f"{count} messages moved from {args.queue} to {settings.queue}")
    return 0


def orders(args: argparse.Namespace) -> int:
    """List dispatched orders, the newest first."""
    from . import ledgers
    from .ledgers.port import Filter

    rows = []
    for row in ledgers.read(os.environ, args.limit, Filter(args.since, args.id, args.user, args.correlation_id)):
        row["dispatched_at"] = iso(row["dispatched_at"] / 1000)
        row["redelivered"] = bool(row["redelivered"])
        rows.append(row)
    columns = ("dispatched_at", "id", "user", "items", "total", "correlation_id")
    _show(rows, (*columns, "host") if configuration.ledger(os.environ) else columns, args.json)
    return 0


def dead(args: argparse.Namespace) -> int:
    """List, show, replay or purge dead letters."""
    from .deadletters import DeadLetters

    settings = configuration.load(os.environ)

    def work(parameters: Any) -> int:
        box, count = DeadLetters(settings, parameters), 0
        try:
            letters = box.letters(args.id, args.reason)
            if args.action == "list":
                columns = ("id", "reason", "first-seen", "attempt", "octets", "order-id")
                _show((letter.summary() for letter in letters), columns, args.json)
                return 0
            for letter in letters:
                count += 1
                if args.action == "show":
                    print(to_json(letter.details(), indent=2))
                elif not args.dry_run:
                    (box.replay if args.action == "replay" else box.drop)(letter)
            if args.action != "show":
                done = {"replay": "replayed", "purge": "purged"}[args.action]
                print(f"{count} dead letters {'would be ' if args.dry_run else ''}{done}")
            return 1 if args.id and not count else 0
        finally:
            box.close()

    return int(_connected(settings, work))


def export(args: argparse.Namespace) -> int:
    """Move dead letters out of the queue into a file."""
    from . import letterfile
    from .deadletters import DeadLetters

    settings, path = configuration.load(os.environ), args.file or _new_letter_file()

    def work(parameters: Any) -> None:
        with closing(DeadLetters(settings, parameters)) as box:
            for letter in box.letters(args.id, args.reason):
                file.take(box, letter)

    with closing(letterfile.LetterFile(path)) as file:
        try:
            _connected(settings, work)
        finally:  # whatever has ended it, the letters that have left the queue are in this file
            if file.count:
                print(f"{file.count} dead letters moved to {path}; `dispatch dead import` puts them back")
    if file.count:
        return 0
    print("0 dead letters")
    return 1 if args.id else 0


def restore(args: argparse.Namespace) -> int:
    """Put the dead letters of a file back into the dead-letter queue."""
    from . import letterfile
    from .deadletters import DeadLetters

    settings = configuration.load(os.environ)

    def work(parameters: Any) -> tuple[int, int]:
        with closing(DeadLetters(settings, parameters)) as box:
            return letterfile.restore(box, found)

    try:
        found = list(letterfile.read(args.file))
    except letterfile.LetterFileError as error:
        print(f"failed: {error}.", file=sys.stderr)
        return EX_DATAERR
    put, there = _connected(settings, work)
    print(f"{put} dead letters put back into the dead-letter queue, {there} were there already")
    return 0


def _new_letter_file() -> Path:
    """A file of this moment in the service's own directory, which is the one place where its user may write."""
    now = datetime.now(timezone.utc)
    return configuration.state_directory(os.environ) / f"dead-letters-{now:%Y%m%dT%H%M%SZ}.jsonl"


def ledger(args: argparse.Namespace) -> int:
    """Work on the ledger."""
    from .ledgers import commands

    actions = {"backup": commands.backup, "migrate": commands.migrate, "import": commands.take_over}
    return actions[args.action](args)


def _connected(settings: configuration.Settings, work: Callable[[Any], Any]) -> Any:
    """Call `work` with the parameters of one host after another, until one can be reached."""
    from pika.exceptions import AMQPChannelError

    from .amqp.connection import parameters
    from .failures import ERRORS, explain

    for host in settings.hosts:
        try:
            return work(parameters(settings, host))
        except ERRORS as error:
            if isinstance(error, BrokenPipeError) or getattr(error, "filename", None):
                raise  # this is about the output or a file, not about the broker
            print(f"failed: {escaped(str(explain(error, settings, host)))}.", file=sys.stderr)
            if isinstance(error, AMQPChannelError):
                break  # the broker can be reached, and has refused
    raise SystemExit(EX_UNAVAILABLE)


def _show(rows: Iterable[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        for row in rows:
            print(to_json(row))
        return
    table = [columns, *(tuple("-" if row.get(c) is None else escaped(str(row[c])) for c in columns) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dispatch",
        description="Take paid orders from RabbitMQ and record each exactly once.",
        epilog="Settings are environment variables: AMQP_HOST, AMQP_USER, AMQP_PASS and more; on a provisioned "
        "host they are in /etc/dispatch/environment.",
    )
    parser.add_argument("--version", action="store_true", help="print the version, and with --json what it is made of")
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    as_json: dict[str, Any] = {"action": "store_true", "help": "print one JSON object per line"}

    def group(
        into: argparse.ArgumentParser, dest: str, required: bool = True
    ) -> Callable[..., argparse.ArgumentParser]:
        commands = into.add_subparsers(dest=dest, required=required, metavar=dest.upper())

        def add(name: str, text: str, function: Callable[..., int] | None = None) -> argparse.ArgumentParser:
            added = commands.add_parser(name, help=text, description=text)
            added.set_defaults(function=function)
            return added

        return add

    command = group(parser, "command", required=False)
    command("run", "Consume orders until SIGTERM or SIGINT.", run)
    command("check", "Try settings, hook, network, login, permissions, topology, ledger; change nothing.", check)
    sub = command("doctor", "Tell what is wrong with Dispatch on this host and what mends it; change nothing.", doctor)
    sub.add_argument("--json", action="store_true", help="print the report as one JSON object")
    sub.add_argument("--advisories", type=Path, metavar="FILE", help="warn of versions that these OSV records list")
    sub = command("drain", "Wait until no order is left on the broker, before pointing Dispatch at another one.", drain)
    sub.add_argument("--timeout", type=seconds, metavar="SECONDS", help="give up after this time, with exit code 1")
    sub = command("publish", "Publish orders as payment does, and report how many no queue has taken.", publish)
    sub.add_argument("--count", type=number, default=1, metavar="N", help="sample orders to publish (1)")
    sub.add_argument("--interval", type=seconds, default=0.0, metavar="SECONDS", help="time between two orders (0)")
    sub.add_argument("--file", help="instead publish each line of FILE unchanged; - is standard input")
    sub = command("move", "Put what waits in another queue into the order queue, each message once that has it.", move)
    sub.add_argument("queue", metavar="QUEUE", help="the queue to empty")
    sub = command("orders", "List dispatched orders, the newest first.", orders)
    sub.add_argument("--limit", type=number, default=20, metavar="N", help="at most N orders (20)")
    sub.add_argument("--since", type=moment, metavar="TIME", help="from TIME on, such as 2026-11-20T10:00:00Z")
    sub.add_argument("--id", help="the order with this id")
    sub.add_argument("--user", help="orders of this user")
    sub.add_argument("--correlation-id", metavar="ID", help="orders whose messages had this correlation id")
    sub.add_argument("--json", **as_json)
    action = group(command("dead", "List, show, replay, export, import or purge dead letters."), "action")
    for name, text in (
        ("list", "List dead letters and why they failed."),
        ("show", "Show dead letters with their properties and bodies."),
        ("replay", "Put dead letters back into the order queue."),
        ("export", "Move dead letters out of the queue into a new file."),
        ("purge", "Remove dead letters for good."),
    ):
        sub = action(name, text, export if name == "export" else dead)
        which = sub.add_mutually_exclusive_group(required=name != "list")
        which.add_argument("--id", help="the one with this id, or those of the order with this id")
        which.add_argument("--reason", help="those that failed for this reason")
        which.add_argument("--all", action="store_true", help="all of them")
        if name == "export":
            sub.add_argument(
                "file", type=Path, nargs="?", metavar="FILE",
                help="the file to create (beside the ledger, named after this moment)",
            )  # fmt: skip
        elif name == "list":
            sub.add_argument("--json", **as_json)
        elif name != "show":
            sub.add_argument("--dry-run", action="store_true", help="count them, and change nothing")
    sub = action("import", "Put the dead letters of a file back into the dead-letter queue.", restore)
    sub.add_argument("file", type=Path, metavar="FILE", help="a file that `dispatch dead export` has written")
    action = group(command("ledger", "Work on the ledger."), "action")
    sub = action("backup", "Copy the ledger to a new file while it is in use.", ledger)
    sub.add_argument("file", type=Path, metavar="FILE", help="the file to create")
    sub = action("migrate", "Make the schema of the ledger's database, or bring it up to date.", ledger)
    sub.add_argument("--owner", metavar="ROLE", help="the role that owns the database (that of DISPATCH_LEDGER)")
    sub.add_argument(
        "--password-file", type=Path, metavar="FILE",
        help="its password, - is standard input (by default libpq looks it up, in PGPASSFILE for instance)",
    )  # fmt: skip
    sub = action("import", "Add the orders of a host's own ledger to that of the fleet.", ledger)
    sub.add_argument("file", type=Path, metavar="FILE", help="a ledger.db, or a copy made by `dispatch ledger backup`")
    sub.add_argument("--host", metavar="NAME", help="the host that dispatched them (this one)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand and return its exit code."""
    from .ledgers.port import AwayError, LedgerError

    parser = _parser()
    args = parser.parse_args(argv)
    if not (args.version or args.command):
        parser.error("the following arguments are required: COMMAND")
    try:
        return version(args) if args.version else int(args.function(args))
    except configuration.SettingsError as error:
        print("".join(f"bad setting: {problem}.\n" for problem in error.problems), end="", file=sys.stderr)
        return EX_CONFIG
    except LedgerError as error:
        print(f"failed: {error}.", file=sys.stderr)
        return EX_DATAERR if error.damaged else EX_IOERR
    except AwayError as error:
        print(f"failed: {error}; {error.remedy}.", file=sys.stderr)
        return EX_UNAVAILABLE
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # about a file named on the command line
        print(f"failed: {error}.", file=sys.stderr)
        return EX_IOERR


if __name__ == "__main__":
    sys.exit(main())
