"""The tests on real hosts. Some speak to a PostgreSQL, for which psycopg needs the distribution's libpq."""

import ctypes.util

if not ctypes.util.find_library("pq"):
    # Only here, because a service imports hooks from this package where the lab's own packages are not installed.
    from tests.lab import engine

    engine.install("libpq5")
