"""What this project fetches and runs is pinned to what has been looked at."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
USER_DATA = ROOT / "inventories" / "ec2" / "user-data.txt"
# It makes a venv whose programs note their names, their arguments and what is checked out.
INTERPRETER = """#!/bin/sh
mkdir -p .venv/bin
echo 'PATH=$PWD/.venv/bin:$PATH' > .venv/bin/activate
for program in pip python ansible-playbook; do
  echo 'echo "${0##*/} $* at $(cat VERSION)" >> "$LOG"' > .venv/bin/$program
  chmod +x .venv/bin/$program
done
"""


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_and_may_only_read(workflow: Path) -> None:
    text = workflow.read_text()
    used = re.findall(r"uses: *(.+)", text)
    assert used
    others = [action for action in used if not action.startswith("./.github/workflows/")]
    loose = [action for action in others if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)]
    assert loose == []
    workflow_file = yaml.safe_load(text)
    assert workflow_file["permissions"] == {"contents": "read"}
    granted = {name: job["permissions"] for name, job in workflow_file["jobs"].items() if "permissions" in job}
    assert granted == ({"release": {"contents": "write"}} if workflow.name == "release.yml" else {})


def test_only_a_tag_is_released_and_only_once_all_of_ci_has_passed() -> None:
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    assert release["on"] == {"push": {"tags": ["v*"]}}
    assert release["jobs"]["test"] == {"uses": "./.github/workflows/ci.yml"}
    assert release["jobs"]["release"]["needs"] == "test"


def test_every_workflow_ends_and_has_but_one_run_that_counts() -> None:
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text())
        assert workflow["concurrency"]["group"]
        assert [name for name, job in workflow["jobs"].items() if "steps" in job and "timeout-minutes" not in job] == []


def test_every_lock_is_renewed() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    (python,) = [update for update in updates if update["package-ecosystem"] == "pip"]
    locks = subprocess.run(
        ["git", "ls-files", "*requirements*.txt"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    renewed = {directory.strip("/") for directory in python["directories"]}
    # The lab's payment is as old as RoboShop's is.
    assert {str(Path(lock).parent).strip(".") for lock in locks} - {"tests/lab/payment"} == renewed


def test_no_step_of_a_job_finds_the_token_in_the_checkout() -> None:
    jobs = [job for path in WORKFLOWS for job in yaml.safe_load(path.read_text())["jobs"].values()]
    checkouts = [step for job in jobs for step in job.get("steps", []) if "checkout" in step.get("uses", "")]
    assert checkouts
    assert [step for step in checkouts if step["with"]["persist-credentials"] is not False] == []


def test_collections_are_those_that_the_tests_run_with() -> None:
    required = yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]
    installed = {}
    for one in required:
        namespace, name = one["name"].split(".")
        manifest = Path(sysconfig.get_path("purelib"), "ansible_collections", namespace, name, "MANIFEST.json")
        installed[one["name"]] = json.loads(manifest.read_text())["collection_info"]["version"]
    assert {one["name"]: one["version"] for one in required} == installed


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", "Makefile", "inventories/ec2/user-data.txt"])
def test_packages_are_installed_by_their_hashes(file: str) -> None:
    installs = re.findall(r"pip install .*", (ROOT / file).read_text())
    assert [command for command in installs if "--require-hashes" not in command] == []


class Instance:
    """A host without cloud-init that runs the script of the user data, and the repository it takes Dispatch from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repository = root / "repository"
        self.git("init", "--quiet", "--initial-branch=main", str(self.repository), cwd=root)
        (root / "python").write_text(INTERPRETER)
        (root / "python").chmod(0o755)

    def git(self, *words: str, cwd: Path | None = None) -> str:
        own = ("-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", *own, *words], cwd=cwd or self.repository, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, version: str) -> str:
        (self.repository / "VERSION").write_text(version)
        self.git("add", "VERSION")
        self.git("commit", "--quiet", "--message", version)
        return self.git("rev-parse", "HEAD")

    def provision(self, revision: str) -> tuple[int, list[str]]:
        """Run the script; return its exit code and what it ran."""
        (script,) = [
            file["content"]
            for file in yaml.safe_load(USER_DATA.read_text())["write_files"]
            if file["path"].endswith("provision-dispatch")
        ]
        for old, new in {
            "https://git.example.com/roboshop/dispatch.git": str(self.repository),
            "0" * 40: revision,
            "/usr/bin/python3.11": str(self.root / "python"),
            "/opt/roboshop-dispatch": str(self.root / "checkout"),
        }.items():
            assert script.count(old) == 1
            script = script.replace(old, new)
        log = self.root / "log"
        log.write_text("")
        done = subprocess.run(["sh", "-c", script], env={**os.environ, "LOG": str(log)}, cwd=self.root)
        return done.returncode, log.read_text().splitlines()


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance(tmp_path)


def test_an_instance_runs_the_commit_it_was_told_and_no_later_one(instance: Instance) -> None:
    first = instance.commit("1")
    instance.commit("2")
    code, ran = instance.provision(first)
    assert code == 0
    assert ran[-1] == "ansible-playbook --inventory /etc/roboshop/hosts.yml playbooks/dispatch.yml at 1"
    third = instance.commit("3")
    assert instance.provision(first)[1] == ran
    assert instance.provision(third)[1][-1].endswith("at 3")


def test_an_instance_that_was_told_no_commit_of_the_repository_runs_nothing(instance: Instance) -> None:
    instance.commit("1")
    code, ran = instance.provision("0" * 40)
    assert code != 0
    assert ran == []
