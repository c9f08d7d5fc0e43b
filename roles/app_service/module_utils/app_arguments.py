"""The argument that app_state and app_switch share: the document of what is wanted of a host."""

from __future__ import annotations

from typing import Any

WANTED: dict[str, Any] = {
    "type": "dict",
    "required": True,
    "options": {
        "name": {"type": "str", "required": True},
        "account": {"type": "dict", "required": True},
        "home": {"type": "dict", "required": True},
        "sha256": {"type": "str", "required": True},
        "signers": {"type": "str", "default": ""},
        "revoked": {"type": "str", "default": ""},
        "configuration": {"type": "path", "required": True},
        "kind": {"type": "str", "default": ""},
        "go": {"type": "str", "default": ""},
        "installer": {"type": "bool", "default": False},
        "kinds": {"type": "dict", "required": True},
        "credentials": {"type": "dict", "default": {}, "no_log": True},
        "start_seconds": {"type": "float", "default": 60},
        "stop_seconds": {"type": "float", "default": 30},
        "releases_kept": {"type": "int", "default": 3},
        "drain": {"type": "dict"},
    },
}
