"""Runs Molecule's default scenario on one distribution after another; a table says which ran, and why others didn't."""

from __future__ import annotations

import os
import subprocess
import time

import docker

from tests.lab import LabError, MissingImageError, image
from tests.lab.ansible import ROOT

# The facsimile can't install RabbitMQ, which on EL9 comes from the vendor's repositories.
BROKERS = {"el9-facsimile": "debian12"}


def run(client: docker.DockerClient, names: list[str], first: bool = False) -> bool:
    """Run the scenario on each distribution of `names` that can be had here; return whether any ran and none failed.

    With `first`, one run is enough: that on the first distribution of `names` that can be had.

    Raises LabError for a name that is not a distribution.
    """
    outcomes: dict[str, str] = {}
    for name in names:
        broker = BROKERS.get(name, name)
        if name not in image.DISTRIBUTIONS:
            raise LabError(f"{name} is not a distribution of the lab's; there are {', '.join(image.DISTRIBUTIONS)}.")
        try:
            image.ensure(client, name)
        except MissingImageError as error:
            outcomes[name] = f"left out: {error}"
            continue
        except LabError as error:
            outcomes[name] = f"FAILED: {error}"
            continue
        started = time.monotonic()
        print(f"molecule test on {name}, its broker on {broker}", flush=True)
        done = subprocess.run(
            ["molecule", "test", "--scenario-name", "default"],
            cwd=ROOT,
            env={**os.environ, "DISTRIBUTION": name, "BROKER_DISTRIBUTION": broker},
        )
        outcomes[name] = f"{'FAILED' if done.returncode else 'passed'} in {time.monotonic() - started:.0f} s"
        if first:
            break
    print("\nPreview, converge, idempotence, verify and restart of the host, by Molecule's scenario default:")
    for name in image.DISTRIBUTIONS:
        print(f"  {name:14} {outcomes.get(name, 'left out: not asked for (make molecule DISTRIBUTIONS=…)')}")
    ends = {outcome.split(" ", 1)[0] for outcome in outcomes.values()}
    return "passed" in ends and not any(end.startswith("FAILED") for end in ends)
