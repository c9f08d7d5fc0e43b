"""The SBOM of the controller's venv: what ``requirements.txt`` pins, as CycloneDX in JSON."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from dispatch_app import __version__


def sbom(root: Path) -> str:
    """The document of the checkout at `root`, which is the same at each call.

    Raises subprocess.CalledProcessError if cyclonedx-py fails; it has said why by then.
    """
    command = ["cyclonedx-py", "requirements", "requirements.txt", "--pyproject", "pyproject.toml"]
    options = ["--mc-type", "application", "--output-reproducible"]
    # It warns that pins alone don't tell which package needs which.
    environment = {**os.environ, "PYTHONWARNINGS": "ignore::UserWarning"}
    done = subprocess.run([*command, *options], cwd=root, env=environment, stdout=subprocess.PIPE, check=True)
    document = json.loads(done.stdout)
    # cyclonedx-py finds no version there, because setuptools reads it from the package.
    document["metadata"]["component"]["version"] = __version__
    return json.dumps(document, indent=2) + "\n"
