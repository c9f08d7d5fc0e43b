"""Dispatch on every host of its group: ``pyinfra deploys/inventory.py deploys/dispatch.py``."""

from deploys.provision import dispatch

dispatch()
