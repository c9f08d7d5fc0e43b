"""Resolves a variable that holds a secret, so that no error shows it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

# Ansible loads this file by its path, and finds no other file beside it.
sys.path.append(str(Path(__file__).resolve().parents[1] / "filter_utils"))

import app_secrets

# What a collection's lookup says that asks a store of secrets. One of Ansible's own may repeat the line it stands in.
_LOOKUP = re.compile(r"The lookup plugin '(?!ansible\.builtin\.)[\w.]+' failed: .+", re.DOTALL)


@jinja2.pass_context
def secret(context: jinja2.runtime.Context, variable: str) -> dict[str, Any]:
    """The ``value`` of a variable, None where it is not set, and its ``fault``, "" for none.

    Where Ansible can't resolve a template, it shows the line that it stands in, even with ``no_log``. A password with
    braces is a template to Ansible, so its error ends here, in a sentence that names `variable` alone.
    """
    try:
        value = context.get(variable)
    except jinja2.TemplateError as error:
        answer = _LOOKUP.search(str(error))
        if answer:
            return {"value": None, "fault": f"{variable} could not be looked up. {answer[0]}"}
        value = jinja2.Undefined()
    if not isinstance(value, jinja2.Undefined):
        return {"value": value, "fault": ""}
    return {
        "value": None,
        "fault": (
            f"{variable}, or a variable that it refers to, is a template that can't be resolved; what it says is not "
            "shown, because it may be the password. Ansible takes {{, {% and {# for the start of a template: if they "
            f'belong to the password, write it as {variable}: !unsafe "…". If it is meant to be a template, set the '
            "variables that it names, and open the vaults of these."
        ),
    }


@jinja2.pass_context
def secret_faults(context: jinja2.runtime.Context, variable: str) -> list[str]:
    """What is wrong with a variable that has to hold a secret, in a sentence that does not show it."""
    found = secret(context, variable)
    if found["fault"]:
        return [found["fault"]]
    return app_secrets.secret_faults(variable, found["value"], "it", "<inventory>")


class FilterModule:
    """The filters of this file, by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"app_secret": secret, "app_secret_faults": secret_faults}
