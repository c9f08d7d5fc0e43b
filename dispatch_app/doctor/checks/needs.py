"""Ids of the checks that others need: what one of them finds hides what would be found after it."""

from __future__ import annotations

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
