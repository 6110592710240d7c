"""pyproject.toml, constraints.txt and the packages that are installed here agree; truth is the packages' own metadata."""

import ast
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = {
    canonicalize_name(line.partition("==")[0]): line.strip().partition("==")[2]
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
}


def brought(name: str, extras: set[str], known: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """(package, extra) of all that a package and some of its extras bring, as far as it is installed."""
    for extra in ("", *extras):
        if (name, extra) in known:
            continue
        known.add((name, extra))
        try:
            needed = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            continue
        for one in needed:
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                brought(canonicalize_name(one.name), one.extras, known)
    return known


def test_every_package_that_somite_brings_is_pinned():
    wanted = {name for name, _ in brought("somite", {"dev"}, set())} - {"somite", "pip", "setuptools"}  # the environment's own
    assert {"torch", "ray", "transformers", "submitit", "tokenizers"} <= wanted
    foreign = {name for name in wanted if re.match(r"nvidia-|cuda-|triton$", name)}  # PyTorch's own choice for GPUs
    assert not sorted(wanted - foreign - {*PINNED})


def test_every_package_that_the_source_imports_is_declared():
    declared = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    extras = {canonicalize_name(Requirement(line).name) for lines in PROJECT["optional-dependencies"].values() for line in lines}
    imported = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).partition(".")[0])
    homes = packages_distributions()
    outside = {canonicalize_name(homes[name][0]) for name in imported - sys.stdlib_module_names - {"somite"} if name in homes}
    assert {"pyyaml", "torch", "numpy"} <= outside
    assert not sorted(outside - declared - extras)


def test_the_lowest_python_is_a_tested_one():
    named = sorted(
        tuple(int(n) for n in found[1].split("."))
        for line in PROJECT["classifiers"]
        if (found := re.search(r":: Python :: (3\.\d+)$", line))
    )
    assert PROJECT["requires-python"] == f">={'.'.join(map(str, named[0]))}"
    assert named[0] <= sys.version_info[:2] <= named[-1]


@pytest.mark.parametrize("extra", ["diffusers", "ray", "slurm", "tensorboard", "transformers"])
def test_tests_have_every_optional_package(extra):
    (whole,) = [Requirement(line) for line in PROJECT["optional-dependencies"]["test"] if line.startswith("somite[")]
    assert extra in PROJECT["optional-dependencies"]
    assert extra in whole.extras
