"""The artifact: the same bytes for the same sources, and all that a host needs."""

import io
import os
import re
import zipfile
from pathlib import Path

import pytest

from dispatch_app import artifact

PACKAGE = Path(artifact.__file__).parent


def names(content: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(content)).namelist()


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    files = {"b.py": b"2", "a/c.py": b"1", "a.py": b"3"}
    assert artifact.build(files) == artifact.build(dict(reversed(files.items())))
    assert names(artifact.build(files)) == ["a.py", "a/c.py", "b.py"]
    for copy, stamp in (("one", 1_000_000_000), ("two", 1_700_000_000)):
        for file in (file for file in PACKAGE.rglob("*.*") if file.suffix in (".py", ".txt")):
            target = tmp_path / copy / file.relative_to(PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
            target.chmod(0o600 if copy == "one" else 0o755)
            os.utime(target, (stamp, stamp))
    one, two = (artifact.build(artifact.contents(tmp_path / copy, {})) for copy in ("one", "two"))
    assert one == two


def test_one_changed_byte_gives_another_artifact() -> None:
    assert artifact.build({"a": b"1"}) != artifact.build({"a": b"2"})


def test_it_holds_the_package_the_pins_and_the_wheels(tmp_path: Path) -> None:
    wheel = tmp_path / "pika-1.0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    found = names(artifact.build(artifact.contents(PACKAGE, {"wheels": [wheel]})))
    assert {"dispatch_app/__main__.py", "requirements.txt", f"wheels/{wheel.name}"} <= set(found)
    assert not [name for name in found if "artifact" in name or "test" in name or "__pycache__" in name]
    modules = {str(file.relative_to(PACKAGE.parent)) for file in PACKAGE.rglob("*.py")} - {"dispatch_app/artifact.py"}
    assert "dispatch_app/amqp/connection.py" in modules
    assert modules == {name for name in found if name.startswith("dispatch_app/")}


def test_entries_are_stored_with_fixed_time_and_mode() -> None:
    (entry,) = zipfile.ZipFile(io.BytesIO(artifact.build({"a.py": b"1"}))).infolist()
    assert (entry.compress_type, entry.date_time) == (zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))
    assert entry.external_attr >> 16 == 0o100644


def test_it_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        artifact.main(["--help"])
    assert caught.value.code == 0
    assert "dist/dispatch.zip" in capsys.readouterr().out


def test_whoever_reads_the_artifact_while_another_is_built_has_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact, "wheels", lambda *_: [])
    target = tmp_path / "dispatch.zip"
    target.write_bytes(b"the one before")
    with target.open("rb") as reader:
        assert artifact.main([str(target)]) == 0
        assert reader.read() == b"the one before"
    assert "requirements.txt" in names(target.read_bytes())
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("file", "count"), [("requirements.txt", 2), ("installer.txt", 1)])
def test_every_requirement_is_pinned_by_version_and_hash_and_names_no_index(file: str, count: int) -> None:
    lines = (PACKAGE / file).read_text().replace("\\\n", " ").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) == count
    for pin in pins:
        assert re.fullmatch(r"[a-z-]+==[0-9.]+( +--hash=sha256:[0-9a-f]{64})+", pin)


def test_hosts_run_what_the_tests_run_with() -> None:
    """`make lock` renews requirements-dev.txt alone; its comment says how to renew the artifact's pins after it."""
    ours, tested = (
        dict(re.findall(r"^([a-z-]+)==([0-9.]+)", file.read_text(), re.MULTILINE))
        for file in (PACKAGE / "requirements.txt", PACKAGE.parent / "requirements-dev.txt")
    )
    assert ours.keys() == {"pika", "prometheus-client"}
    assert ours.items() <= tested.items()
