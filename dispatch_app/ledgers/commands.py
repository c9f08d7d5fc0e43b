"""`dispatch ledger backup|migrate|import`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from .. import settings as configuration
from ..database import Database
from ..settings import SettingsError
from . import NAME, needing_libpq, sqlite


def backup(args: argparse.Namespace) -> int:
    """Copy the ledger to a new file while it is in use."""
    if database := configuration.ledger(os.environ):
        # PostgreSQL's own program knows better, and copies rights and types, too.
        command = ("pg_dump", "--format=custom", "--schema=dispatch", f"--file={args.file}", database.uri)
        print(f"failed: the ledger is in a database; copy it by: {shlex.join(command)}", file=sys.stderr)
        return 1
    count = sqlite.backup(configuration.state_directory(os.environ) / NAME, args.file)
    print(f"{count} orders copied to {args.file}")
    return 0


def migrate(args: argparse.Namespace) -> int:
    """Make the schema of the ledger's database, or bring it up to date; grant the service's role its rights."""
    schema, database = needing_libpq("schema"), _database()
    owner = database
    if args.owner:
        owner = database.as_role(args.owner, _password(args.password_file) if args.password_file else "")
    elif args.password_file:
        raise SettingsError(["--password-file is given and --owner is not; give both, or neither"])
    found = schema.migrate(database, owner)
    before = f"was of version {found} before" if found else "is new"
    print(f"the ledger at {database} is of version {schema.VERSION}, {before}, and {database.user} may use it")
    return 0


def take_over(args: argparse.Namespace) -> int:
    """Add the orders of a host's own ledger to that of the fleet."""
    database = _database()
    taken, known = needing_libpq("takeover").take_over(database, args.file, args.host)
    print(f"{taken} orders of {args.file} added to {database}, {known} were there already")
    return 0


def _database() -> Database:
    database = configuration.ledger(os.environ)
    if not database:
        raise SettingsError(["DISPATCH_LEDGER is not set; set the URL of the ledger's database"])
    return database


def _password(path: Path) -> str:
    """Return the first line of a file, or of standard input for `-`. Raises OSError."""
    if str(path) == "-":
        return sys.stdin.readline().rstrip("\n")
    with path.open(encoding="utf-8") as file:
        return file.readline().rstrip("\n")
