"""The lab's host image: one Dockerfile over a pulled or a bootstrapped distribution."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import docker
from docker.errors import APIError, BuildError, ImageNotFound

from tests.lab import LabError, engine

DOCKERFILE = Path(__file__).with_name("Dockerfile")
CA_DIRECTORY = Path("/usr/local/share/ca-certificates")
TAG = "roboshop-lab:debian12"
# The distribution's image in a registry, its code name for a bootstrap, and the tag the lab keeps either under.
REGISTRY_IMAGE, CODE_NAME, BASE_TAG = "debian:12", "bookworm", "roboshop-lab-base:bookworm"


def ensure(client: docker.DockerClient) -> str:
    """Return the tag of the host image, built first where it is missing or its Dockerfile has changed.

    Raises LabError with the build's output where the build fails.
    """
    fingerprint = hashlib.sha256(DOCKERFILE.read_bytes()).hexdigest()
    with contextlib.suppress(ImageNotFound):
        if client.images.get(TAG).labels.get("roboshop.dockerfile") == fingerprint:
            return TAG
    base = _base(client)
    print(f"  building {TAG} on {base}", flush=True)
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(DOCKERFILE, context)
        certificates = Path(context, "ca")
        certificates.mkdir()
        for certificate in CA_DIRECTORY.glob("*.crt"):
            shutil.copy(certificate, certificates)
        try:
            client.images.build(
                path=context, tag=TAG, rm=True, buildargs={"BASE": base}, labels={"roboshop.dockerfile": fingerprint}
            )
        except BuildError as error:
            output = "".join(str(line.get("stream", "")) for line in error.build_log if isinstance(line, dict))
            raise LabError(f"The image {TAG} could not be built: {error}\n{output}") from error
    return TAG


def remove(client: docker.DockerClient) -> None:
    """Remove the host image and its bootstrapped base, where they are."""
    for tag in (TAG, BASE_TAG):
        with contextlib.suppress(ImageNotFound):
            client.images.remove(tag, force=True)


def _base(client: docker.DockerClient) -> str:
    for tag in (BASE_TAG, REGISTRY_IMAGE):
        with contextlib.suppress(ImageNotFound):
            client.images.get(tag)
            return tag
    try:
        print(f"  pulling {REGISTRY_IMAGE}", flush=True)
        # Under the lab's own tag, so that taking the lab away takes this away too.
        client.images.pull(REGISTRY_IMAGE).tag(BASE_TAG)
        client.images.remove(REGISTRY_IMAGE)
        return BASE_TAG
    except APIError as error:
        print(
            f"  no registry answers ({error.explanation or error}); bootstrapping from this machine's apt sources",
            flush=True,
        )
    return _bootstrap(client)


def _bootstrap(client: docker.DockerClient) -> str:
    if not shutil.which("mmdebstrap"):
        engine.install("mmdebstrap")
    sources = [
        str(path)
        for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
        if path.is_file()
    ]
    if not sources:
        raise LabError("No registry answers and this machine has no apt sources to bootstrap from; pull debian:12.")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory, "root.tar")
        done = subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", CODE_NAME, str(root), sources[0]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise LabError(f"mmdebstrap could not bootstrap {CODE_NAME}:\n{done.stdout}")
        repository, tag = BASE_TAG.split(":")
        client.api.import_image(str(root), repository=repository, tag=tag)
    return BASE_TAG
