"""The second engine: Dispatch provisioned by pyinfra, from the inventory, the roles and the templates Ansible uses."""

import importlib

import gevent

# While it is imported, Ansible passes the resolver an address that the resolver has to refuse. gevent, on which pyinfra
# runs, would print that expected refusal as an error, so the import happens here, with gevent kept quiet.
_hub = gevent.get_hub()
_loud = _hub.NOT_ERROR
_hub.NOT_ERROR = (*_loud, OSError)
importlib.import_module("ansible.module_utils.common.arg_spec")
_hub.NOT_ERROR = _loud
