"""An upgrade that RabbitMQ does not support, or an Erlang that it does not run on, is told with what to do instead."""

from __future__ import annotations

import pytest
from ansible.module_utils import rabbitmq_versions as versions


@pytest.mark.parametrize(
    ("package", "upstream", "number"),
    [
        ("3.10.8-1.1+deb12u1", "3.10.8", (3, 10, 8)),
        ("1:25.2.3+dfsg-1+deb12u4", "25.2.3", (25, 2, 3)),
        ("4.1.5-1.el8", "4.1.5", (4, 1, 5)),
        ("4.0.0~rc.1-1", "4.0.0", (4, 0, 0)),
        ("27.3.4", "27.3.4", (27, 3, 4)),
    ],
)
def test_a_package_s_version_holds_its_authors_one(package: str, upstream: str, number: tuple[int, ...]) -> None:
    assert (versions.upstream(package), versions.number(package)) == (upstream, number)
    assert versions.matches(package, upstream)
    assert versions.matches(package, package)
    assert not versions.matches(package, upstream[:-1])


@pytest.mark.parametrize(
    ("installed", "wanted"),
    [
        ("3.10.8-1.1+deb12u1", "3.10.8-1.1+deb12u2"),
        ("3.10.8", "3.10.25"),
        ("3.10.25", "3.11.28"),
        ("3.11.18", "3.12.0"),
        ("3.12.14", "3.13.7"),
        ("3.13.7", "4.0.5"),
        ("3.13.7", "4.2.0"),
        ("4.0.5", "4.1.5"),
        ("4.2.6", "4.3.4"),
        ("5.0.1", "5.0.2"),
    ],
)
def test_a_supported_step_has_no_fault(installed: str, wanted: str) -> None:
    assert versions.path_fault(installed, wanted) == ""


@pytest.mark.parametrize(
    ("installed", "wanted", "said"),
    [
        (
            "3.10.8",
            "4.0.5",
            "in steps alone: 3.11.x, then 3.12.x, then 3.13.x, then 4.0.x. Set it to a release of 3.11.x",
        ),
        ("3.12.1", "4.2.0", "in steps alone: 3.13.x, then 4.2.x"),
        ("3.11.5", "3.12.0", "3.12.x can be reached from 3.11.18 on, while 3.11.5 is installed"),
        ("4.2.0", "9.1.0", "no supported upgrade from 4.2.0 to 9.1.x is known here"),
    ],
)
def test_what_is_no_supported_step_is_told_with_the_next_one(installed: str, wanted: str, said: str) -> None:
    assert said in versions.path_fault(installed, wanted)


@pytest.mark.parametrize(
    ("version", "erlang"),
    [
        ("3.10.8-1.1+deb12u1", "1:25.2.3+dfsg-1+deb12u4"),
        ("4.0.5-3", "1:27.3.4.1+dfsg-1"),
        ("3.12.1-1ubuntu1", "1:25.3.2.8+dfsg-1ubuntu4"),
        ("3.9.27-0ubuntu0.1", "1:24.2.1+dfsg-1ubuntu0.1"),
        ("4.3.6", "28.5"),
        ("9.1.0", "40.0"),  # which nobody knows anything about yet
        ("3.10.8", ""),
    ],
)
def test_a_pair_that_rabbitmq_supports_has_no_fault(version: str, erlang: str) -> None:
    assert versions.erlang_fault(version, erlang) == ""


@pytest.mark.parametrize(
    ("version", "erlang", "said"),
    [
        ("3.13.7", "25.3.2", "RabbitMQ 3.13.7 would run on Erlang 25.3.2, and supports 26.0 to 26.x"),
        ("4.0.3", "27.0", "supports 26.2 to 26.x"),
        ("4.2.1", "28.0", "supports 27.0 to 27.x"),
        ("3.10.8", "1:26.0-1", "Set rabbitmq_erlang_version to one"),
    ],
)
def test_a_pair_that_it_does_not_support_is_told(version: str, erlang: str, said: str) -> None:
    assert said in versions.erlang_fault(version, erlang)
