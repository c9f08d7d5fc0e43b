"""What is wrong with an artifact is told on the controller, before any host changes."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import app_artifact
import pytest


def damaged(kind: str) -> bytes:
    """A zip that is damaged in one of the ways that zipfile has an error of its own for."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_LZMA if kind == "data" else zipfile.ZIP_STORED) as archive:
        archive.writestr("ä/requirements.txt", "pika\n" * 100)
    octets = bytearray(content.getvalue())
    if kind == "name":
        return bytes(octets).replace("ä".encode(), b"\xff\xff")
    if kind == "data":
        start = octets.index(b"requirements.txt") + len("requirements.txt") + 10  # behind LZMA's properties
        octets[start : start + 4] = b"\xff" * 4
    else:
        sizes = octets.index(b"PK\x01\x02") + 20  # of the directory's entry, packed and unpacked: APPNOTE.TXT, 4.3.12
        octets[sizes : sizes + 8] = b"\xff\xff\xff\0" * 2
    return bytes(octets)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """An artifact that nothing is wrong with."""
    path = tmp_path / "good.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("requirements.txt", "pika\n" * 100)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fault(value: object, digest: str = "") -> str:
    """The one thing that is wrong with an artifact."""
    (said,) = app_artifact.artifact(value, digest, "dispatch_artifact")["faults"]
    return str(said)


@pytest.mark.parametrize("stated", [True, False])
def test_a_file_is_described_by_its_checksum(good: Path, stated: bool) -> None:
    digest = sha256(good)
    assert app_artifact.artifact(str(good), digest if stated else "", "dispatch_artifact") == {
        "value": str(good),
        "url": False,
        "source": str(good),
        "signature": f"{good}.sig",
        "signers": "",
        "revoked": "",
        "sha256": digest,
        "kind": "python",
        "go": "",
        "installer": False,
        "faults": [],
    }


def test_a_url_is_described_by_the_checksum_that_was_stated() -> None:
    assert app_artifact.artifact("https://h/x.zip", "a" * 64, "dispatch_artifact") == {
        "value": "https://h/x.zip",
        "url": True,
        "source": "https://h/x.zip",
        "signature": "https://h/x.zip.sig",
        "signers": "",
        "revoked": "",
        "sha256": "a" * 64,
        "kind": "",
        "go": "",
        "installer": False,
        "faults": [],
    }


@pytest.mark.parametrize("digest", ["", "abc", "A" * 64, "a" * 64 + "\n"])
def test_a_url_needs_a_checksum(digest: str) -> None:
    said = fault("http://h/x.zip", digest)
    assert said.startswith(f'dispatch_artifact_sha256 is "{digest}". Set it to the 64 hexadecimal digits')
    assert said.endswith("they are required where dispatch_artifact is a URL (http://h/x.zip).")


def test_a_file_that_is_missing_is_named() -> None:
    said = fault("/nowhere.zip")
    assert said.startswith("dispatch_artifact is /nowhere.zip, and there is no such file on the controller. Build it")


def test_a_file_that_is_no_zip_is_refused() -> None:
    assert "not a readable zip file (zipfile.BadZipFile: File is not a zip file)" in fault(__file__)


def test_a_zip_that_is_damaged_is_refused(good: Path) -> None:
    content = good.read_bytes()
    good.write_bytes(content.replace(b"pika", b"pikb", 1))
    assert "not a readable zip file (requirements.txt is damaged)" in fault(good)
    good.write_bytes(content[:-30])
    assert "not a readable zip file (zipfile.BadZipFile: " in fault(good)


@pytest.mark.parametrize("kind", ["name", "data", "size"])
def test_a_zip_is_refused_however_it_is_damaged(good: Path, kind: str) -> None:
    good.write_bytes(damaged(kind))
    assert f"dispatch_artifact is {good}, and that is not a readable zip file (" in fault(good)


def test_another_checksum_than_the_stated_one_is_refused(good: Path) -> None:
    said = fault(good, "0" * 64)
    assert said.startswith(f"{good} has the SHA-256 {sha256(good)}, but dispatch_artifact_sha256 says {'0' * 64}.")


def test_a_checksum_that_is_none_is_refused(good: Path) -> None:
    assert fault(good, "abc").startswith('dispatch_artifact_sha256 is "abc". Set it to the 64 hexadecimal digits')


def test_a_zip_that_is_none_of_the_kinds_is_refused(good: Path) -> None:
    with zipfile.ZipFile(good, "w") as archive:
        archive.writestr("below/requirements.txt", "")
    assert fault(good).startswith(f"dispatch_artifact is {good}, and that zip is none of the three")


def test_go_source_is_described_by_the_version_it_asks_for(good: Path) -> None:
    with zipfile.ZipFile(good, "w") as archive:
        archive.writestr("main.go", "package main")
        archive.writestr("./go.mod", "module dispatch\n\n// go 1.2\ngo 1.21.3 // or later\n")
    described = app_artifact.artifact(good, "", "dispatch_artifact")
    assert (described["kind"], described["go"], described["faults"]) == ("go", "1.21.3", [])


def test_a_binary_has_the_name_of_the_variable_s_service(good: Path) -> None:
    with zipfile.ZipFile(good, "w") as archive:
        executable = zipfile.ZipInfo("dispatch")
        executable.external_attr = 0o100755 << 16
        archive.writestr(executable, "")
    assert app_artifact.artifact(good, "", "dispatch_artifact")["kind"] == "binary"
    (said,) = app_artifact.artifact(good, "", "payment_artifact")["faults"]
    assert "it has dispatch at its root" in said


def test_a_file_that_has_changed_is_read_again(good: Path) -> None:
    before = app_artifact.artifact(good, "", "dispatch_artifact")["sha256"]
    with zipfile.ZipFile(good, "a") as archive:
        archive.writestr("module.py", "")
    after = app_artifact.artifact(good, "", "dispatch_artifact")["sha256"]
    assert before != after == sha256(good)


@pytest.mark.parametrize("stale", [None, "/nowhere", "/"])
def test_a_relative_path_is_one_of_the_real_working_directory(
    good: Path, monkeypatch: pytest.MonkeyPatch, stale: str | None
) -> None:
    monkeypatch.chdir(good.parent)
    if stale is None:
        monkeypatch.delenv("PWD", raising=False)
    else:
        monkeypatch.setenv("PWD", stale)
    described = app_artifact.artifact("good.zip", "", "dispatch_artifact")
    assert (described["source"], described["faults"]) == (str(good), [])
    assert f"there is no such file on the controller (looked for: {good.with_name('none.zip')})" in fault("none.zip")


def test_a_home_directory_is_known(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(good.parent))
    assert app_artifact.artifact("~/good.zip", "", "dispatch_artifact")["source"] == str(good)
