"""The lab's host images: one Dockerfile on top of a distribution that is pulled or bootstrapped."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import APIError, BuildError, ImageNotFound

from tests.lab import LabError, MissingImageError, engine

DOCKERFILE = Path(__file__).with_name("Dockerfile")
APT_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
CA_DIRECTORY = Path("/usr/local/share/ca-certificates")
DEFAULT = "debian12"


@dataclass(frozen=True)
class Distribution:
    """A distribution that lab hosts can be made of: an image of a registry and, for Debian, a code name to bootstrap.

    Without `registry_image`, this machine must already have an image with the tag `base_tag`.
    """

    name: str
    registry_image: str = ""
    code_name: str = ""

    @property
    def tag(self) -> str:
        return f"roboshop-lab:{self.name}"

    @property
    def base_tag(self) -> str:
        """The lab's own tag for the distribution, wherever it came from."""
        return f"roboshop-lab-base:{self.name}" if self.registry_image else f"{self.name}:9"


DISTRIBUTIONS = {
    one.name: one
    for one in (
        Distribution("debian12", "debian:12", "bookworm"),
        Distribution("debian13", "debian:13", "trixie"),
        Distribution("ubuntu22", "ubuntu:22.04"),
        Distribution("ubuntu24", "ubuntu:24.04"),
        Distribution("ubuntu26", "ubuntu:26.04"),
        Distribution("rocky9", "rockylinux/rockylinux:9"),
        Distribution("rocky10", "rockylinux/rockylinux:10"),
        Distribution("alma9", "almalinux:9"),
        Distribution("alma10", "almalinux:10"),
        Distribution("amazon2023", "amazonlinux:2023"),
        # EL9's dnf, rpm, names and layout over Debian's files show that the dnf path works, not that Rocky does.
        Distribution("el9-facsimile"),
    )
}


def ensure(client: docker.DockerClient, name: str = DEFAULT) -> str:
    """Return the tag of a distribution's host image; build it first if it is missing or the Dockerfile has changed.

    Raises MissingImageError for a distribution that can't be had here, and LabError for an unknown one or, with the
    build's output, for a build that fails.
    """
    if name not in DISTRIBUTIONS:
        raise LabError(f"{name} is not a distribution of the lab's; there are {', '.join(DISTRIBUTIONS)}.")
    distribution = DISTRIBUTIONS[name]
    fingerprint = hashlib.sha256(DOCKERFILE.read_bytes()).hexdigest()
    with contextlib.suppress(ImageNotFound):
        if client.images.get(distribution.tag).labels.get("roboshop.dockerfile") == fingerprint:
            return distribution.tag
    base = _base(client, distribution)
    print(f"  building {distribution.tag} on {base}", flush=True)
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(DOCKERFILE, context)
        certificates = Path(context, "ca")
        certificates.mkdir()
        for certificate in CA_DIRECTORY.glob("*.crt"):
            shutil.copy(certificate, certificates)
        try:
            client.images.build(
                path=context,
                tag=distribution.tag,
                rm=True,
                buildargs={"BASE": base},
                labels={"roboshop.dockerfile": fingerprint},
            )
        except BuildError as error:
            output = "".join(str(line.get("stream", "")) for line in error.build_log if isinstance(line, dict))
            raise LabError(f"The image {distribution.tag} could not be built: {error}\n{output}") from error
    return distribution.tag


def remove(client: docker.DockerClient) -> None:
    """Remove the host images, and those of their bases that the lab brought here."""
    for distribution in DISTRIBUTIONS.values():
        for tag in (distribution.tag, distribution.base_tag if distribution.registry_image else ""):
            with contextlib.suppress(ImageNotFound):
                if tag:
                    client.images.remove(tag, force=True)


def _base(client: docker.DockerClient, distribution: Distribution) -> str:
    for tag in (distribution.base_tag, distribution.registry_image):
        with contextlib.suppress(ImageNotFound):
            if tag:
                client.images.get(tag)
                return tag
    if not distribution.registry_image:
        reason = f"{distribution.name} needs the image {distribution.base_tag}, which is not on this machine."
        raise MissingImageError(reason)
    try:
        print(f"  pulling {distribution.registry_image}", flush=True)
        # The lab's own tag marks the image as one to remove with the lab.
        client.images.pull(distribution.registry_image).tag(distribution.base_tag)
        client.images.remove(distribution.registry_image)
        return distribution.base_tag
    except APIError as error:
        reason = f"{distribution.registry_image} can't be pulled ({error.explanation or error})"
    if not distribution.code_name:
        raise MissingImageError(f"{reason}, and only Debian can be bootstrapped from packages.")
    print(f"  {reason}; bootstrapping from this machine's apt sources", flush=True)
    return _bootstrap(client, distribution)


def _bootstrap(client: docker.DockerClient, distribution: Distribution) -> str:
    if not shutil.which("mmdebstrap"):
        engine.install("mmdebstrap")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory, "root.tar")
        sources = _sources(Path(directory), distribution)
        done = subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", distribution.code_name, root, sources],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise LabError(f"mmdebstrap could not bootstrap {distribution.code_name}:\n{done.stdout}")
        repository, tag = distribution.base_tag.split(":")
        client.api.import_image(str(root), repository=repository, tag=tag)
    return distribution.base_tag


def _sources(directory: Path, distribution: Distribution) -> Path:
    """Copy this machine's apt sources into `directory`, with the distribution's code name in place of its own.

    Raises LabError where this machine has no apt sources.
    """
    for source in APT_SOURCES:
        if source.is_file():
            own = platform.freedesktop_os_release()["VERSION_CODENAME"]
            copy = directory / source.name
            copy.write_text(source.read_text().replace(own, distribution.code_name))
            return copy
    raise LabError(
        f"No registry answers and this machine has no apt sources to bootstrap {distribution.code_name} from; "
        f"pull {distribution.registry_image}."
    )
