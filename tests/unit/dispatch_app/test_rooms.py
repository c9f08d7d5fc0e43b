"""Only dispatch_app/amqp may use what pika doesn't offer: pyproject.toml bounds pika for the sake of that package."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dispatch_app

PACKAGE = Path(dispatch_app.__file__).parent
# Modules of pika that encode and decode for it, and are no part of its interface.
INNER = {"spec", "frame", "data", "amqp_object", "channel", "connection", "callback", "heartbeat"}


def trespasses(source: str) -> Iterator[str]:
    """Yield each use of something private: other objects' underscored names, pika's inner modules, its subclasses."""
    tree = ast.parse(source)
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            parts = [alias.name for alias in node.names if alias.name.split(".")[0] == "pika"]
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "pika":
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        imported |= {alias.asname or alias.name.split(".")[0] for alias in node.names if parts}
        for part in parts:
            _, *below = part.split(".")
            if any(name.startswith("_") for name in below) or (below and below[0] in INNER):
                yield f"line {node.lineno}: {part}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            # A module's own objects are reached by self or cls. What else has an underscore is somebody else's.
            private = node.attr.startswith("_") and not node.attr.startswith("__")
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "os")  # os._exit is documented
            inner = isinstance(node.value, ast.Name) and node.value.id == "pika" and node.attr in INNER
            if (private and not own) or inner:
                yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                root = base
                while isinstance(root, ast.Attribute):
                    root = root.value
                if isinstance(root, ast.Name) and root.id in imported:
                    yield f"line {node.lineno}: class {node.name}({ast.unparse(base)})"


def outside() -> list[Path]:
    return [file for file in PACKAGE.rglob("*.py") if PACKAGE / "amqp" not in file.parents]


@pytest.mark.parametrize("file", outside(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_outside_amqp_nothing_private_of_pika_is_used(file: Path) -> None:
    # `_replace` and `_fields` are the public interface of named tuples; the underscore only avoids clashes with fields.
    found = [each for each in trespasses(file.read_text()) if not each.endswith(("._replace", "._fields"))]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "self._conn._impl.params", "conn._terminate_stream(error)", "super()._on_data_available(b'')",
        "import pika.spec", "from pika import exceptions, spec", "from pika._x import y", "import pika\npika.frame",
        "import pika\nclass C(pika.SelectConnection): pass", "from pika import SelectConnection as S\nclass C(S): pass",
    ],
)  # fmt: skip
def test_each_kind_of_use_is_found(source: str) -> None:
    assert len(list(trespasses(source))) == 1


def test_amqp_is_there_for_a_reason() -> None:
    assert list(trespasses((PACKAGE / "amqp" / "connection.py").read_text()))
    assert list(trespasses((PACKAGE / "amqp" / "properties.py").read_text()))
