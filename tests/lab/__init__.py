"""The lab: containers on this machine that look to Ansible like EC2 hosts.

``make lab`` and the tests boot their hosts with it; the Molecule scenarios use its image.
"""

from __future__ import annotations


class LabError(Exception):
    """The lab can't go on; the message says what is wrong and what to do."""


class MissingImageError(LabError):
    """A distribution's image is not on this machine, and can't be had here."""
