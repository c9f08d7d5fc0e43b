"""The artifact as a local process, as its README says: no host, no venv, no systemd."""

from __future__ import annotations

import subprocess
import sys

from tests.integration.consumer.harness import Service, until
from tests.lab.ansible import ROOT

# -S keeps this venv's packages away, so that those in the artifact have to do.
ALONE = [sys.executable, "-I", "-S", str(ROOT / "dist" / "dispatch.zip")]


def test_the_artifact_alone_dispatches_an_order(service: Service) -> None:
    def command(*words: str) -> str:
        done = subprocess.run([*ALONE, *words], env=service.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with service.journal.open("ab") as journal:
        service._process = subprocess.Popen([*ALONE, "run"], env=service.environment, stderr=journal)
    service.await_ready()
    command("publish")
    until(service.dispatched)
    ((order_id, _),) = service.dispatched()
    assert order_id in command("orders")
    assert service.stop() == 0
