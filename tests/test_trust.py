"""A stranger's recipe is refused before anything expands it; classes and files that it may not name are in test_pipeline.py."""

from pathlib import Path

import pytest
import yaml

import somite
from somite import trust
from somite.errors import InputError
from somite.recipe import build, bundled, parse
from somite.trust import bounded, only_own

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
BOMBS = {
    "nested aliases": (LAUGHS, "10000 values"),
    "nested merges": (MERGED, "10000 values"),
    "nested aliases as keys": (LAUGHS.replace("i: &i", "? *h\n: "), "10000 values"),
    "levels of aliases": ("a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(60)), "50 levels"),
    "levels": ("a: " + "[" * 40_000, "50 levels|maximum nesting depth"),  # PyYAML 6.0.4 refuses it first
    "levels of blocks": ("- " * 40_000, "50 levels"),
    "many values": ("a: [" + "1," * 11_000 + "]", "10000 values"),
    "many documents": ("--- a\n" * 11_000, "10000 values"),
    "a cycle": ("a: &a [1, *a]", r"\*a, of what it lies in"),
    "a cycle of two": ("a: &a {b: &b [*a]}", r"\*a, of what it lies in"),
    "a number to base 60": ("a: 1" + ":30" * 30_000, "90001 characters"),
    "a large file": ("#" * 100_001, "too large"),
    "an endless file": (None, "too large"),
}


@pytest.fixture(params=[only_own, bounded, parse, lambda path: somite.load(path.parent), lambda path: somite.load(path.parent, trust=True)],
                ids=["only_own", "bounded", "parse", "load", "trusted"])  # fmt: skip
def reader(request):
    return request.param


@pytest.mark.timeout(5)  # the first import of a process counts; the reading itself takes hundredths of a second
@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_refused_at_once(tmp_path, kind, reader):
    text, words = BOMBS[kind]
    path = tmp_path / "recipe.yaml"
    if text is None:
        with path.open("wb") as file:
            file.truncate(2**40)
    else:
        path.write_text(text)
    with pytest.raises(InputError, match=words) as error:
        reader(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


BROKEN = {"open": b"task: [", "latin": b"a: \xff", "zero": b"a: \0", "unknown alias": b"a: *b", "object": b"a: !!python/name:os.system"}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_yaml_is_refused(tmp_path, kind):
    (tmp_path / "recipe.yaml").write_bytes(BROKEN[kind])
    with pytest.raises(InputError, match=r"recipe\.yaml cannot be read as a recipe \(.*origin"):
        only_own(tmp_path / "recipe.yaml")


def nodes(tree):
    match tree:
        case dict():
            return 1 + sum(1 + nodes(value) for value in tree.values())
        case list():
            return 1 + sum(map(nodes, tree))
        case _:
            return 1


def levels(tree):
    children = list(tree.values()) if isinstance(tree, dict) else tree if isinstance(tree, list) else []
    return 1 + max(map(levels, children), default=0)


TREES = {
    "plain": "a: [1, 2, {b: c}]\nd: e",
    "aliases": "a: &a [1, 2]\nb: &b {x: *a, y: *a}\nc: [*b, *b, [*a]]",
    "scalars": "a: &a hello\nb: [*a, *a]",
    "redefined": "a: &a [1, 2]\nb: *a\nc: &a [1]\nd: [[*a]]",
    "deep at first": "a: &a [[[1]]]\nb: 1\nc: [[*a]]",
}


@pytest.mark.parametrize("kind", TREES)
def test_the_count_is_that_of_the_tree_written_out(tmp_path, kind, monkeypatch):
    path = tmp_path / "a.yaml"
    path.write_text(TREES[kind])
    tree = yaml.safe_load(TREES[kind]) if kind != "redefined" else {"a": [1, 2], "b": [1, 2], "c": [1], "d": [[[1]]]}
    monkeypatch.setattr(trust, "NODES", nodes(tree))
    monkeypatch.setattr(trust, "DEPTH", levels(tree))
    assert bounded(path) == TREES[kind]
    monkeypatch.setattr(trust, "NODES", nodes(tree) - 1)
    with pytest.raises(InputError, match="values"):
        bounded(path)
    monkeypatch.setattr(trust, "NODES", nodes(tree))
    monkeypatch.setattr(trust, "DEPTH", levels(tree) - 1)
    with pytest.raises(InputError, match="levels"):
        bounded(path)


def test_every_bundled_recipe_is_far_below(monkeypatch):
    monkeypatch.setattr(trust, "NODES", 1000)
    monkeypatch.setattr(trust, "DEPTH", 20)
    for path in bundled().values():
        bounded(path)


@pytest.mark.parametrize("text", ["codec: 2001-01-01", "terms: !!set {os.system}", "terms: !!omap [a: os.system]", "terms: !!pairs [a: os.system]",
                                  "terms: !!binary AAAA"])  # fmt: skip
def test_no_kind_of_node_hides_a_name(tmp_path, text):
    (tmp_path / "2001-01-01").write_text("class_path: os.system")  # jsonargparse reads no dates: to it this is a file's name
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError, match="not somite's"):
        only_own(tmp_path / "recipe.yaml")


def test_names_of_classes_may_be_any_text_and_name_nothing(tmp_path, monkeypatch):
    (tmp_path / "strange.py").write_text("raise SystemExit('it was imported')\n")
    (tmp_path / "thing.yaml").write_text("class_path: strange.Thing\n")
    monkeypatch.syspath_prepend(tmp_path)
    names = ["not melanoma", "COVID-19/other (T2.1)", "strange.Thing", str(tmp_path / "thing.yaml"), "1"]
    path = tmp_path / "recipe.yaml"
    tree = yaml.safe_load(bundled()["classifier/small"].read_text())
    path.write_text(yaml.safe_dump({**tree, "data": {**tree["data"], "classes": names}}))
    only_own(path)
    recipe = build(parse(path))
    assert recipe.data.classes == names
    path.write_text(yaml.safe_dump({**tree, "data": {**tree["data"], "classes": "strange.Thing"}}))
    with pytest.raises(InputError, match=r"strange\.Thing, which is not somite's"):
        only_own(path)


def test_a_folder_of_a_cache_is_a_path_and_names_nothing(tmp_path, monkeypatch):
    (tmp_path / "strange.py").write_text("raise SystemExit('it was imported')\n")
    (tmp_path / "thing.yaml").write_text("class_path: strange.Thing\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "recipe.yaml"
    tree = yaml.safe_load(bundled()["classifier/small"].read_text())
    for name in ("/scratch/cases", "strange.Thing", str(tmp_path / "thing.yaml")):
        path.write_text(yaml.safe_dump({**tree, "data": {**tree["data"], "cache_folder": name, "cache_disk_gb": 1.0}}))
        only_own(path)
        assert build(parse(path)).data.disk.folder == Path(name)
