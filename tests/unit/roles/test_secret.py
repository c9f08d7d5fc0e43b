"""What is told of a secret that can't be had."""

from __future__ import annotations

import jinja2
import pytest
from app_secret import secret

STORE = "The lookup plugin 'amazon.aws.ssm_parameter' failed: Failed to find SSM parameter /shop/password"


class Failing(jinja2.runtime.Context):
    """Variables of which none can be resolved, for the reason given."""

    def __init__(self, reason: str) -> None:
        super().__init__(jinja2.Environment(autoescape=True), {}, None, {})
        self.reason = reason

    def resolve_or_missing(self, key: str) -> object:
        raise jinja2.UndefinedError(f"{key}: {self.reason}")


def test_what_a_store_of_secrets_says_is_told() -> None:
    assert secret(Failing(STORE), "amqp_password") == {
        "value": None,
        "fault": f"amqp_password could not be looked up. {STORE}",
    }


@pytest.mark.parametrize(
    "reason",
    [
        "'hunter2' is undefined",
        "The lookup plugin 'ansible.builtin.pipe' failed: lookup_plugin.pipe(curl -u shop:hunter2) returned 1",
        "The filter plugin 'ansible.builtin.from_json' failed: hunter2 is no JSON",
        "The lookup plugin 'hunter.2' was not found.",
    ],
)
def test_what_may_repeat_the_secret_is_not_told(reason: str) -> None:
    fault = secret(Failing(reason), "amqp_password")["fault"]
    assert "hunter" not in fault
    assert "amqp_password: !unsafe" in fault
