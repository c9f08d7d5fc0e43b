"""What checks need: the ids of those whose findings hide theirs, and what they say where they do not apply."""

from __future__ import annotations

# Why a check says nothing where the roles run another program, such as the Go original.
FOREIGN = "not applicable to this program, which is not this repository's own"

UNIT = ("unit-missing", "unit-masked")
RUNS = (*UNIT, "user-missing", "artifact-missing")
VENV = (*RUNS, "venv-missing", "runtime-missing", "not-readable")
SET = (*UNIT, "address-placeholder", "settings-invalid")
REACH = (*SET, "broker-unresolvable", "broker-refused", "broker-filtered", "broker-unreachable")
LOGIN = (
    *REACH, "tls-expired", "tls-untrusted", "not-amqp", "guest-remote", "bad-credentials", "vhost-missing",
    "permission-missing",
)  # fmt: skip
ACTIVE = (*LOGIN, "service-stopped", "service-failed", "crash-loop")
