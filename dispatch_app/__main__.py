"""The command line: `dispatch run|check|publish|orders|dead|ledger`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import __version__
from . import settings as configuration

EX_DATAERR, EX_UNAVAILABLE, EX_IOERR, EX_CONFIG = 65, 69, 74, 78  # sysexits(3)


def run(_args: argparse.Namespace) -> int:
    """Consume orders until SIGTERM or SIGINT."""
    from . import logs, service
    from .ledger import Ledger, LedgerError
    from .systemd import Notifier

    logs.setup()
    settings = configuration.load(os.environ)
    hook = service.load_hook(settings.hook)
    path = configuration.ledger_path(os.environ)
    Notifier().send("STATUS=checking the ledger", "EXTEND_TIMEOUT_USEC=600000000")
    try:
        return service.Service(settings, Ledger(path), hook).run()
    except LedgerError as error:
        logs.log.critical("%s", error)
        return EX_DATAERR if error.damaged else EX_IOERR


def check(_args: argparse.Namespace) -> int:
    """Try settings, network, login, permissions and topology."""
    from .check import check

    settings = configuration.load(os.environ)
    codes = []
    for host in settings.hosts:
        failure, remarks = check(settings, host)
        for remark in remarks:
            print(f"note: {remark}")
        if failure:
            print(f"failed: {failure}.", file=sys.stderr)
            codes.append(failure.code)
        else:
            print(f"ok: {settings.url(host)} can be reached, and {settings.queue} consumed.")
    # The hosts stand for one cluster: one that works is enough to run.
    return codes[0] if len(codes) == len(settings.hosts) else 0


def publish(args: argparse.Namespace) -> int:
    """Publish orders as payment does."""
    from .publish import bodies, publish

    settings = configuration.load(os.environ)
    taken, returned = _connected(
        settings,
        lambda parameters: publish(settings, parameters, bodies(args.count, args.file), args.interval),
    )
    print(f"{taken} orders published to {settings.exchange} with key {settings.routing_key}")
    if returned:
        print(f"{returned} orders came back: no queue is bound there; start dispatch first", file=sys.stderr)
    return 1 if returned else 0


def orders(args: argparse.Namespace) -> int:
    """List dispatched orders, the newest first."""
    from .ledger import read

    since = None if args.since is None else int(args.since.timestamp() * 1000)
    path = configuration.ledger_path(os.environ)
    rows = []
    for row in read(path, args.limit, since, args.id, args.user):
        del row["seq"]
        moment = datetime.fromtimestamp(row["dispatched_at"] / 1000, timezone.utc)
        row["dispatched_at"] = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
        row["redelivered"] = bool(row["redelivered"])
        rows.append(row)
    _show(rows, ("dispatched_at", "id", "user", "items", "total", "correlation_id"), args.json)
    return 0


def dead(args: argparse.Namespace) -> int:
    """List, show, replay or purge dead letters."""
    from .dead import DeadLetters

    settings = configuration.load(os.environ)

    def work(parameters: Any) -> int:
        box = DeadLetters(settings, parameters)
        try:
            letters = box.letters(args.id, args.reason)
            if args.action == "list":
                columns = ("id", "reason", "first-seen", "attempt", "octets", "order-id")
                _show((letter.summary() for letter in letters), columns, args.json)
                return 0
            found = 0
            for letter in letters:
                found += 1
                if args.action == "show":
                    print(json.dumps(letter.details(), indent=2, default=repr))
                elif not args.dry_run:
                    box.replay(letter) if args.action == "replay" else box.purge(letter)
            if args.action != "show":
                past = {"replay": "replayed", "purge": "purged"}[args.action]
                print(f"{found} dead letters {'would be ' if args.dry_run else ''}{past}")
            return 0 if found or args.id is None else 1
        finally:
            box.close()

    return int(_connected(settings, work))


def backup(args: argparse.Namespace) -> int:
    """Copy the ledger while it is in use."""
    from .ledger import backup

    count = backup(configuration.ledger_path(os.environ), args.file)
    print(f"{count} orders copied to {args.file}")
    return 0


def _connected(settings: configuration.Settings, work: Callable[[Any], Any]) -> Any:
    """Call `work` with the parameters of the first host that answers."""
    from pika import exceptions

    from .connection import explain, parameters

    for index, host in enumerate(settings.hosts, 1):
        try:
            return work(parameters(settings, host))
        except exceptions.AMQPChannelError as error:
            raise SystemExit(f"failed: {explain(error, settings, host)}") from None
        except (exceptions.AMQPConnectionError, OSError) as error:
            print(f"failed: {explain(error, settings, host)}", file=sys.stderr)
            if index == len(settings.hosts):
                raise SystemExit(EX_UNAVAILABLE) from None


def _show(rows: Iterable[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        for row in rows:
            print(json.dumps(row, default=repr))
        return
    table = [columns, *(tuple("-" if r.get(c) is None else str(r[c]) for c in columns) for r in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def _moment(text: str) -> datetime:
    """Parse `2026-11-20T10:00:00Z`, `2026-11-20 10:00`, `2026-11-20`: UTC unless it has an offset."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2026-11-20T10:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _positive(text: str) -> int:
    if text.isdigit() and 0 < int(text) < 2**31:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no positive number")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0 <= value < 86400:
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dispatch",
        description="Take paid orders from RabbitMQ and record each exactly once.",
        epilog="Settings come from the environment: AMQP_HOST, AMQP_USER, AMQP_PASS and more; see the README.",
    )
    parser.add_argument("--version", action="version", version=f"dispatch {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def verb(into: Any, name: str, function: Callable[..., int], text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = into.add_parser(name, help=text, description=text)
        added.set_defaults(function=function)
        return added

    verb(verbs, "run", run, "Consume orders until SIGTERM or SIGINT.")
    verb(verbs, "check", check, "Try settings, network, login, permissions and topology; change nothing.")
    sub = verb(verbs, "publish", publish, "Publish orders as payment does, and say which no queue took.")
    sub.add_argument("--count", type=_positive, default=1, metavar="N", help="sample orders to publish (1)")
    sub.add_argument("--interval", type=_seconds, default=0.0, metavar="SECONDS", help="wait in between (0)")
    sub.add_argument("--file", metavar="FILE", help="publish each line of FILE instead, as it is; - is standard input")
    sub = verb(verbs, "orders", orders, "List dispatched orders, the newest first.")
    sub.add_argument("--limit", type=_positive, default=20, metavar="N", help="at most N orders (20)")
    sub.add_argument("--since", type=_moment, metavar="TIME", help="from TIME on, as 2026-11-20T10:00:00Z")
    sub.add_argument("--id", help="the order with this id")
    sub.add_argument("--user", help="the orders of this user")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    letters = verbs.add_parser("dead", help="Work on dead letters.", description="Work on dead letters.")
    actions = letters.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (
        ("list", "List dead letters and why they are there."),
        ("show", "Show dead letters with properties and body."),
        ("replay", "Put dead letters back into the order queue."),
        ("purge", "Drop dead letters for good."),
    ):
        sub = verb(actions, name, dead, text)
        which = sub.add_mutually_exclusive_group(required=name != "list")
        which.add_argument("--id", help="the one with this letter id, or those of this order id")
        which.add_argument("--reason", help="those with this reason")
        which.add_argument("--all", action="store_true", help="every one")
        if name == "list":
            sub.add_argument("--json", action="store_true", help="one JSON object a line")
        elif name != "show":
            sub.add_argument("--dry-run", action="store_true", help="only count")
    ledger = verbs.add_parser("ledger", help="Work on the ledger.", description="Work on the ledger.")
    actions = ledger.add_subparsers(dest="action", required=True, metavar="ACTION")
    sub = verb(actions, "backup", backup, "Copy the ledger to a new file while it is in use.")
    sub.add_argument("file", type=Path, metavar="FILE", help="the file to create")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand and return its exit code."""
    args = _parser().parse_args(argv)
    try:
        return int(args.function(args))
    except configuration.SettingsError as error:
        for problem in error.problems:
            print(f"bad setting: {problem}.", file=sys.stderr)
        return EX_CONFIG
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
