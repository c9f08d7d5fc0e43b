"""Lets tests import what the roles bring: their module_utils as modules find them, their filter plugins by name."""

from __future__ import annotations

import sys
from pathlib import Path

import ansible.module_utils

ROLES = Path(__file__).resolve().parents[3] / "roles"

ansible.module_utils.__path__.extend(str(path) for path in sorted(ROLES.glob("*/module_utils")))
sys.path.extend(str(path) for path in sorted(ROLES.glob("*/filter_plugins")))
