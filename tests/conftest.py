"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says nothing of the code on a machine that does other work, too.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
