"""Gets the wheels that a requirements.txt names, and builds those that the index lacks, as a user without rights.

To build a package, pip runs code of it. That code can write to one directory, which is removed afterwards, and read
what everybody may read.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible.module_utils.app_plan import BuildError, run

BUILDER = "nobody"
# So pip says that code of a package failed, in contrast to a package or an index that is not there.
FAILED = re.compile(r"Failed building wheel|Failed to build|metadata-generation-failed|subprocess-exited-with-error")


def gather(pip: Sequence[str], requirements: Path, place: Path, index: Mapping[str, str]) -> Path:
    """Return a directory of wheels for all that a file of requirements names, and for what that needs.

    `pip` is the command that runs pip, `place` a directory to make, and `index` has pip's settings for the index.
    Raises BuildError.
    """
    builder = pwd.getpwnam(BUILDER)
    place.mkdir(mode=0o700)
    os.chown(place, builder.pw_uid, builder.pw_gid)
    wheels = place / "wheels"
    # A wheel of an earlier version comes before a later version that has to be built. Except by PEP 517's rules, pip
    # would need setuptools and wheel in the venv.
    command = [
        *pip, "wheel", "--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check", "--prefer-binary",
        "--use-pep517", "--wheel-dir", str(wheels), "--requirement", str(requirements),
    ]  # fmt: skip
    environment = {**os.environ, **index, "HOME": str(place), "TMPDIR": str(place)}
    try:
        run(command, environment, place, user=builder.pw_uid, group=builder.pw_gid, extra_groups=[])
    except BuildError as error:
        error.unbuilt = FAILED.search(str(error)) is not None
        raise
    return wheels
