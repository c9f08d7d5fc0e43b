"""The password is changed where it is kept, and one play brings it to the broker and to the hosts."""

from __future__ import annotations

import dataclasses
import uuid

import pika
import pytest

from tests.integration.cloud import account
from tests.integration.conftest import BROKER, DISPATCH, TestLab

pytestmark = pytest.mark.long
PARAMETER = "/roboshop/lab/amqp_password"
OWN = "lookup('ansible.builtin.password', __lab_password_file, chars=['ascii_letters', 'digits'], length=32)"
LOOKED_UP = f"lookup('amazon.aws.ssm_parameter', '{PARAMETER}')"


def test_a_new_password_in_the_store_reaches_both_ends_by_one_play(
    lab: TestLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = uuid.uuid4().hex
    with account() as cloud:
        for name in [name for name in cloud.environment if name.startswith("AWS_")]:
            monkeypatch.setenv(name, cloud.environment[name])
        store = cloud.client("ssm")
        store.put_parameter(Name=PARAMETER, Value=lab.password, Type="SecureString")
        with lab.edited(OWN, LOOKED_UP, "site"):
            same = lab.playbook("site")
            assert (same.code, same.changed) == (0, 0), same.output

            store.put_parameter(Name=PARAMETER, Value=new, Type="SecureString", Overwrite=True)
            rotated = lab.playbook("site", "--diff")
            assert rotated.code == 0, rotated.output
            assert rotated.recap[BROKER]["changed"] > 0
            assert rotated.recap[DISPATCH]["changed"] > 0
            assert new not in rotated.output
            with pytest.raises(pika.exceptions.ProbableAuthenticationError):
                lab.connect()
            dataclasses.replace(lab, password=new).assert_consuming()

            again = lab.playbook("site")
            assert (again.code, again.changed) == (0, 0), again.output
