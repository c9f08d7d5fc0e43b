"""The tests on real hosts. Some speak to a PostgreSQL, for which psycopg needs the distribution's libpq."""

import ctypes.util

from tests.lab import engine

if not ctypes.util.find_library("pq"):
    engine.install("libpq5")
