"""An artifact counts with the signature that was asked for alone, wherever it is looked at."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import app_artifact
import pytest
from ansible.module_utils import app_build, app_fetch, app_releases, app_signature

from tests.signatures import Case, Keys, cases, keygen, zipped
from tests.unit.roles.test_build import INTERPRETER

Look = Callable[[Case], str]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


class Server(HTTPServer):
    """Serves files by their names."""

    files: dict[str, bytes]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        found = self.server.files.get(self.path)
        self.send_response(404 if found is None else 200)
        self.end_headers()
        self.wfile.write(found or b"")

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.files = {}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def written(case: Case, path: Path) -> Path:
    path.write_bytes(case.content)
    beside = Path(f"{path}.sig")
    beside.unlink(missing_ok=True)
    if case.signature is not None:
        beside.write_bytes(case.signature)
    return path


def plan(case: Case, root: Path, **given: str) -> app_build.Plan:
    """The plan of a release of it; `given` has what makes its runtime."""
    sha256 = hashlib.sha256(case.content).hexdigest()
    return app_build.Plan(
        written(case, root / "x.zip"), sha256, root / "app/releases/one", name="dispatch", signers=case.signers,
        revoked=case.revoked, **given,
    )  # fmt: skip


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An interpreter that makes a venv of itself, on a host in a directory."""
    (tmp_path / "app/releases").mkdir(parents=True)
    monkeypatch.setattr(app_build, "LOCKS", tmp_path)
    monkeypatch.setattr(app_build, "ROOT", os.geteuid())
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    interpreter = tmp_path / "python"
    interpreter.write_text(INTERPRETER)
    interpreter.chmod(0o755)
    return str(interpreter)


@pytest.fixture(params=["on the controller", "before unpacking", "by URL, Ansible", "by URL, pyinfra"])
def look(
    request: pytest.FixtureRequest, tmp_path: Path, python: str, server: Server, capsys: pytest.CaptureFixture[str]
) -> Look:
    """One of the places that look at an artifact; it returns why that is refused."""
    url = f"http://127.0.0.1:{server.server_port}/x.zip"

    def on_the_controller(case: Case) -> str:
        path = written(case, tmp_path / "x.zip")
        found = app_artifact.artifact(str(path), "", "dispatch_artifact", case.signers, case.revoked)
        return "\n".join(found["faults"])

    def before_unpacking(case: Case) -> str:
        try:
            app_build.build(plan(case, tmp_path, interpreter=python))
        except app_build.BuildError as error:
            assert list((tmp_path / "app/releases").iterdir()) == []
            return str(error)
        assert app_releases.stands(tmp_path / "app/releases/one")
        shutil.rmtree(tmp_path / "app/releases/one")
        return ""

    def by_ansible(case: Case) -> str:
        signers = app_signature.Signers("dispatch", case.signers, case.revoked)
        return str(app_fetch.told(written(case, tmp_path / "x.zip"), signers).fault)

    def by_pyinfra(case: Case) -> str:
        given = {"/x.zip": case.content, "/x.zip.sig": case.signature}
        server.files = {name: content for name, content in given.items() if content is not None}
        app_fetch.main({
            "name": "dispatch", "source": url, "signature": f"{url}.sig", "path": str(tmp_path / "held.zip"),
            "sha256": hashlib.sha256(case.content).hexdigest(), "signers": case.signers, "revoked": case.revoked,
        })  # fmt: skip
        return str(json.loads(capsys.readouterr().out).get("failure", ""))

    places = {
        "on the controller": on_the_controller, "before unpacking": before_unpacking, "by URL, Ansible": by_ansible,
        "by URL, pyinfra": by_pyinfra,
    }  # fmt: skip
    return places[str(request.param)]


def test_only_what_was_signed_by_who_may_counts(look: Look, keys: Keys) -> None:
    for case in cases(keys, zipped(), zipped(text="# tampered with")):
        refused = look(case)
        assert (case.said in refused) if case.said else (refused == ""), (case.name, refused)


def test_go_source_is_signed_as_python_is(keys: Keys, tmp_path: Path) -> None:
    for case in cases(keys, zipped("go"), zipped("go", "// tampered with")):
        found = app_artifact.artifact(
            str(written(case, tmp_path / "x.zip")), "", "dispatch_artifact", case.signers, case.revoked
        )
        assert (found["kind"], bool(found["faults"])) == ("" if case.said else "go", bool(case.said)), case.name


def test_where_nobody_has_to_sign_no_signature_is_looked_at(look: Look) -> None:
    assert look(Case("", zipped(), b"no signature", "")) == ""


def test_a_certificate_of_an_authority_counts(keys: Keys) -> None:
    content, user = zipped(), keys.path("user")
    keys.path("authority")
    keygen("-q", "-s", str(keys.path("authority")), "-I", "x", "-n", "release@shop", f"{user}.pub")
    signature = keygen("-Y", "sign", "-f", f"{user}-cert.pub", "-n", "dispatch-artifact", content=content)
    allowed = f"*@shop cert-authority {keys.public('authority')}"
    for revoked, said in (
        ("", ""),
        (keys.public("user"), "revoked lists"),
        (keys.public("authority"), "revoked lists"),
    ):
        refused = app_signature.fault(content, signature, app_signature.Signers("dispatch", allowed, revoked))
        assert (said in refused) if said else (refused == "")


def test_a_standing_release_is_verified_once_for_each_list_of_signers(keys: Keys, tmp_path: Path, python: str) -> None:
    content = zipped()
    good, ours = keys.sign("release", content), f"release {keys.public('release')}"
    release = tmp_path / "app/releases/one"

    def build(signers: str, revoked: str = "") -> bool:
        return bool(app_build.build(plan(Case("", content, good, signers, revoked), tmp_path, interpreter=python)))

    assert build("")
    os.utime(release / ".complete", (1, 1))
    made = (release / "venv").stat()
    assert not build("")
    assert build(ours)
    assert not build(ours)
    assert not (tmp_path / "x.zip.sig").exists()
    with pytest.raises(app_build.BuildError, match="revoked lists"):
        build(ours, keys.public("release"))
    assert app_releases.verified(release) == app_signature.Signers("dispatch", ours).digest()
    assert ((release / "venv").stat(), (release / ".complete").stat().st_mtime) == (made, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_has_nobody_read_what_strangers_wrote(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    signature = keys.sign("release", b"x")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:  # which everybody can enter
        directory = Path(name)
        (directory / "ssh-keygen").write_text("#!/bin/sh\nid -u; id -G; exit 1\n")
        for path in (directory, directory / "ssh-keygen"):
            path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
        said = app_signature.fault(b"x", signature, app_signature.Signers("dispatch", "x y"))
    assert "ssh-keygen says: 65534 65534" in said


def test_a_host_without_ssh_keygen_is_told_what_to_install(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    signature = keys.sign("release", b"x")
    monkeypatch.setenv("PATH", "/nowhere")
    said = app_signature.fault(b"x", signature, app_signature.Signers("dispatch", "x y"))
    assert "Install OpenSSH's ssh-keygen there (openssh-client" in said


@pytest.mark.parametrize(
    ("signers", "revoked", "said"),
    [
        ("release", "", "dispatch_artifact_signers is set, and line 1 of it is none such as release ssh-ed25519"),
        ("\n# a\nssh-ed25519 AAAAC3\n", "", "line 3 of it is none"),
        ("# nobody\n", "", "dispatch_artifact_signers is set, and has no line such as"),
        ("a\tssh-ed25519 AAAAC3", "no key", "dispatch_artifact_revoked is set, and line 1 of it is none such as"),
        ("", "ssh-ed25519 AAAAC3", "dispatch_artifact_revoked is set, but not dispatch_artifact_signers"),
    ],
)
def test_texts_that_name_no_keys_are_refused(signers: str, revoked: str, said: str) -> None:
    (fault,) = app_artifact.artifact("https://h/x.zip", "a" * 64, "dispatch_artifact", signers, revoked)["faults"]
    assert said in fault


def test_a_signature_is_beside_what_it_signs() -> None:
    for source, signature in (
        ("https://h/x.zip", "https://h/x.zip.sig"),
        ("https://h/x.zip?a=b", "https://h/x.zip.sig?a=b"),
    ):
        assert app_artifact.artifact(source, "a" * 64, "dispatch_artifact")["signature"] == signature
    assert app_artifact.artifact("/x.zip", "", "dispatch_artifact")["signature"] == "/x.zip.sig"
