"""Where spans go, if anywhere. OpenTelemetry is imported only where a collector is set: nobody else pays for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .settings import Settings, SettingsError

if TYPE_CHECKING:
    from .otlp import Tracer

# The artifact carries OpenTelemetry beside this package, and not in the venv, where it would be in the way of a hook
# that requires another version of the same packages.
CARRIED = str(Path(__file__).parents[1] / "tracing")


def configured(settings: Settings) -> Tracer | None:
    """Return what makes spans and exports them, if a collector is set. Raises SettingsError."""
    if not settings.otlp:
        return None
    if CARRIED not in sys.path:
        sys.path.insert(0, CARRIED)
    try:
        from .otlp import Tracer
    except ImportError as error:
        remedy = "install opentelemetry-exporter-otlp-proto-http, which the artifact carries, or unset it"
        problem = f"DISPATCH_OTLP_ENDPOINT is set, and OpenTelemetry can't be imported ({error}); {remedy}"
        raise SettingsError([problem]) from error
    return Tracer(settings.otlp, settings)
