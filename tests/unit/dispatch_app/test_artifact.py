"""The artifact: the same bytes for the same sources, and all that a host needs."""

import io
import os
import re
import subprocess
import sys
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
    builder = {"dispatch_app/artifact.py", "dispatch_app/sbom.py"}
    modules = {str(file.relative_to(PACKAGE.parent)) for file in PACKAGE.rglob("*.py")} - builder
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
    assert {*tmp_path.iterdir()} == {target, tmp_path / "dispatch.cdx.json"}


def test_a_signature_stays_for_as_long_as_it_is_of_what_it_is_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact, "wheels", lambda *_: [])
    monkeypatch.setattr(artifact, "commit", lambda _: "a")
    target, signature = tmp_path / "dispatch.zip", tmp_path / "dispatch.zip.sig"
    artifact.main([str(target)])
    signature.touch()
    artifact.main([str(target)])
    assert signature.exists()
    monkeypatch.setattr(artifact, "commit", lambda _: "b")
    artifact.main([str(target)])
    assert not signature.exists()


def test_what_exports_spans_is_carried_unpacked_and_found_in_the_zip_as_in_a_release(tmp_path: Path) -> None:
    """A package that spreads over two wheels, as OpenTelemetry does, has no `__init__.py` of its own."""
    wheels = [tmp_path / "one-1-py3-none-any.whl", tmp_path / "two-1-py3-none-any.whl"]
    for wheel, module in zip(wheels, ("one", "two"), strict=True):
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"spread/sub/{module}.py", f"name = '{module}'")
            archive.writestr(f"{module}-1.dist-info/METADATA", "")
            archive.writestr(f"spread/sub/{module}.pyi", "name: str")
    files = artifact.unpacked(wheels)
    assert {name for name in files if not name.endswith("/")} == {
        "spread/sub/one.py", "spread/sub/two.py", "one-1.dist-info/METADATA", "two-1.dist-info/METADATA",
    }  # fmt: skip
    target = tmp_path / "dispatch.zip"
    target.write_bytes(artifact.build({f"tracing/{name}": content for name, content in files.items()}))
    with zipfile.ZipFile(target) as archive:
        archive.extractall(tmp_path / "release")
    for place in (target, tmp_path / "release"):
        code = "import spread.sub.one, spread.sub.two; print(spread.sub.one.name, spread.sub.two.name)"
        environment = {**os.environ, "PYTHONPATH": str(place / "tracing")}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stdout == "one two\n", done.stderr


PIN = f"courier-client==2.1 --hash=sha256:{'a' * 64}"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package of a shop; what pip would download for the artifact is made here."""

    def download(requirements: Path, directory: Path) -> list[Path]:
        directory.mkdir()
        found = re.findall(r"^([a-z-]+)==", requirements.read_text(), re.MULTILINE)
        for name in found:
            with zipfile.ZipFile(directory / f"{name}-1-py3-none-any.whl", "w") as wheel:
                wheel.writestr(zipfile.ZipInfo(f"{name.replace('-', '_')}/__init__.py"), "")
                metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"
                wheel.writestr(zipfile.ZipInfo(f"{name.replace('-', '_')}-1.dist-info/METADATA"), metadata)
        return sorted(directory.iterdir())

    monkeypatch.setattr(artifact, "wheels", download)
    package = tmp_path / "shop"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").write_text("def hook(order): ...\n")
    (package / "letter.txt").write_text("Dear customer")
    for left_out in ("__pycache__/x.pyc", ".env"):
        (package / left_out).write_text("secret")
    (tmp_path / "pins.txt").write_text(PIN.replace(" --", " \\\n    --") + "\n    # by the shop\n")
    return package


def packed(shop: Path, *more: str) -> Path:
    target = shop.parent / "shop.zip"
    assert artifact.main([str(target), "--with", str(shop), *more]) == 0
    return target


def test_a_shop_s_code_and_its_wheels_are_packed_beside_the_consumer(shop: Path) -> None:
    pins = str(shop.parent / "pins.txt")
    first = packed(shop, "--requirements", pins).read_bytes()
    (shop / "letter.txt").touch()
    assert packed(shop, "--requirements", pins).read_bytes() == first
    archive = zipfile.ZipFile(io.BytesIO(first))
    assert {name for name in archive.namelist() if name.startswith("shop/")} == {"shop/__init__.py", "shop/letter.txt"}
    assert {"wheels/courier-client-1-py3-none-any.whl", "wheels/pika-1-py3-none-any.whl"} <= set(archive.namelist())
    assert "tracing/opentelemetry_sdk/__init__.py" in archive.namelist()
    written = archive.read("requirements.txt").decode()
    assert written.startswith((PACKAGE / "requirements.txt").read_text())
    assert "courier-client==2.1" in written
    assert packed(shop).read_bytes() != first


@pytest.mark.parametrize("name", ["dispatch_app", "wheels", "venv", "tracing", "pika", "courier_client", "json"])
def test_a_shop_s_package_has_a_name_of_its_own(shop: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    other, target = shop.rename(shop.parent / name), shop.parent / "out.zip"
    pins = str(shop.parent / "pins.txt")
    assert artifact.main([str(target), "--with", str(other), "--requirements", pins]) == 1
    assert f"{name} is the name of something that Dispatch has; rename" in capsys.readouterr().err
    assert not target.exists()


def test_what_is_no_package_of_python_s_is_refused(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for directory, why in (
        (shop.parent / "missing", "is not a directory"),
        (shop.rename(shop.parent / "my-shop"), "no name that Python imports"),
    ):
        assert artifact.main([str(shop.parent / "out.zip"), "--with", str(directory)]) == 1
        assert why in capsys.readouterr().err
    (empty := shop.parent / "empty").mkdir()
    assert artifact.main([str(shop.parent / "out.zip"), "--with", str(empty)]) == 1
    assert "has no Python file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("courier-client==2.1", "has the line 'courier-client==2.1'"),
        (PIN.replace("==", ">="), "has the line 'courier-client>=2.1"),
        ("-e git+https://example.org/courier", "has the line '-e git"),
        ("--index-url https://example.org/", "has the line '--index-url"),
        (PIN.replace("courier-client", "Prometheus_Client"), "names Prometheus_Client, which Dispatch pins itself"),
    ],
)
def test_requirements_are_pinned_by_hash_and_leave_dispatch_its_own(
    shop: Path, line: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (pins := shop.parent / "bad.txt").write_text(f"{line}\n")
    assert artifact.main([str(shop.parent / "out.zip"), "--with", str(shop), "--requirements", str(pins)]) == 1
    assert f"{pins} {why}" in capsys.readouterr().err


def test_a_requirement_may_be_for_some_pythons_alone() -> None:
    line = PIN.replace(" --", " ; python_version < '3.11' --")
    assert artifact.requirements("pika==1\n", line, "pins") == f"pika==1\n{line}\n"


@pytest.mark.parametrize(("file", "count"), [("requirements.txt", 4), ("installer.txt", 1), ("tracing.txt", 16)])
def test_every_requirement_is_pinned_by_version_and_hash_and_names_no_index(file: str, count: int) -> None:
    lines = (PACKAGE / file).read_text().replace("\\\n", " ").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) == count
    for pin in pins:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.b]+( +--hash=sha256:[0-9a-f]{64})+", pin)


def test_hosts_run_what_the_tests_run_with() -> None:
    """`make lock` renews requirements-dev.txt alone; its comment says how to renew the artifact's pins after it."""
    ours, traced, tested = (
        dict(re.findall(r"^([a-z0-9-]+)==([0-9.b]+)", file.read_text(), re.MULTILINE))
        for file in (PACKAGE / "requirements.txt", PACKAGE / "tracing.txt", PACKAGE.parent / "requirements-dev.txt")
    )
    assert ours.keys() == {"pika", "prometheus-client", "psycopg", "typing-extensions"}
    assert ours.items() <= tested.items()
    assert "opentelemetry-exporter-otlp-proto-http" in traced
    assert traced.items() <= tested.items()
