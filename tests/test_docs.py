"""The documentation's commands and snippets are run, page by page, in a folder with small data; training is cut to two steps."""

import ast
import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import torch

import somite
from official_sdseg import state
from somite.cli import main, parser
from somite.data.phantoms import write_phantoms
from somite.networks.ctpretrain import CTPretrain
from somite.nn.pyramid_heads import head_for
from somite.nn.tiny import Tiny
from somite.recipe import bundled, parse

DOCS = Path(__file__).parents[1] / "docs"
SOURCE = Path(somite.__file__).parent
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = sorted(page for page in DOCS.rglob("*.md") if BLOCK.search(page.read_text()))
CYCLE = ["--method.network.channels=[8,8]", "--method.network.hidden=8", "--method.network.down=1", "--method.network.up=1"]
PYRAMID = ["--method.network.channels=14", "--method.network.hidden=8", "--method.network.updates=2"]
SMALL = [
    *("--data.preprocess.size=null", "--data.crop=32", "--training.steps=2", "--training.batch=2", "--training.validate=2"),
    *("--task.members=2", "--task.steps=[1,2]"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which every page's commands make sense."""
    root = tmp_path_factory.mktemp("docs")
    write_phantoms(root / "my_images", 10, (40, 40))
    write_phantoms(root / "my_volumes", 6, (32, 36, 9), channels=1)
    write_phantoms(root / "my_classes", 6, (40, 40), classes=2)
    shutil.copy(next((root / "my_images/images").iterdir()), root / "image.png")
    shutil.copy(next((root / "my_volumes/images").iterdir()), root / "scan.nii.gz")
    torch.save({"state_dict": state()}, root / "model.ckpt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for run, recipe in (("mine", "small"), ("demo", "demo")):
            command(f"somite train medsegdiffnca/{recipe} --data.root my_images --out runs/{run}")
    return root


def command(line: str) -> None:
    words = shlex.split(line)
    assert words[0] == "somite"
    small = [*(CYCLE if words[2] == "medsegdiffnca/small" else PYRAMID), *SMALL] if words[1] == "train" else []
    assert main([*words[1:], *small]) == 0, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_the_page_runs_as_it_is_printed(page, place, monkeypatch):
    monkeypatch.chdir(place)
    names: dict = {}
    for kind, text in BLOCK.findall(page.read_text()):
        if kind == "python":
            exec(compile(text, str(page), "exec"), names)
        else:
            for line in text.replace("\\\n", " ").strip().splitlines():
                command(line)


def test_pages_with_commands_are_found():
    assert {"get-started.md", "predict.md", "evaluate.md", "own-data.md", "extend.md"} <= {page.name for page in PAGES}


def test_every_page_is_in_the_navigation():
    navigation = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert pages == set(re.findall(r"[\w/-]+\.md", navigation))


def test_the_chooser_has_every_recipe_with_its_weights():
    rows = dict(re.findall(r"^\| `([\w/-]+)` \|.*?\| ([\d,]+) \|", (DOCS / "recipes.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(rows) == set(bundled())
    for name, path in bundled().items():
        given = parse(path).method.init_args.network
        given = given.init_args.network if given.class_path.endswith(("Guided", "Windows")) else given
        module, _, kind = given.class_path.rpartition(".")
        if kind == "Probe":
            assert rows[name] == f"{weights_of_probe(name, given.init_args):,}", name
            continue
        with torch.device("meta"):  # sizes without memory
            sizes = {**vars(given.init_args)}
            if "classes" in sizes and sizes["classes"] is None:  # as many as the data have
                sizes["classes"] = 2
            # A tiny decoder has its teacher's latents; those of a KL autoencoder are counted.
            network = (
                Tiny(width=sizes["width"], blocks=sizes["blocks"])
                if kind == "TinyDecoder"
                else getattr(import_module(module), kind)(**sizes)
            )
        assert rows[name] == f"{sum(p.numel() for p in network.parameters() if p.requires_grad):,}", name


def weights_of_probe(name, told):
    """What is trained of a head and, where it is tuned, of the backbone that the recipe is for."""
    sizes = parse(bundled()["ctpretrain/paper" if name == "probe/paper" else "ctpretrain/small"]).method.init_args.network.init_args
    with torch.device("meta"):
        backbone = CTPretrain(**vars(sizes))
        count = len(told.timesteps) if told.together == "concat" else 1
        head = head_for(told.head, [count * width for width in backbone.channels(told.side)], told.mask_channels)
    tuned = (
        0 if told.tune == "nothing" else sum(p.numel() for p in backbone.parameters()) - sum(p.numel() for p in backbone.out.parameters())
    )
    return tuned + sum(p.numel() for p in head.parameters())


def test_every_command_is_in_the_reference():
    text = (DOCS / "reference/commands.md").read_text(encoding="utf-8")
    (commands,) = [action for action in parser()._actions if isinstance(action.choices, dict)]
    assert not [name for name in commands.choices if f"| `{name}` |" not in text]


def test_messages_are_those_that_somite_prints():
    printed = [re.compile(said(node)) for path in SOURCE.rglob("*.py") for node in sentences(ast.parse(path.read_text(encoding="utf-8")))]
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    messages = [
        " ".join(part.split())
        for block in blocks
        for part in re.split(r"^(?=error: |collapse: |warning: )", block, flags=re.MULTILINE)
        if part
    ]
    assert len(messages) > 20
    assert not [message for message in messages if not any(one.fullmatch(message.removeprefix("error: ")) for one in printed)]


def sentences(tree: ast.AST):
    """String literals long enough to be a message."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.Constant) and len(said(node)) > 40]


def said(node: ast.AST) -> str:
    """A string as a pattern, with anything in the place of what is filled in."""
    match node:
        case ast.JoinedStr():
            return "".join(said(part) for part in node.values)
        case ast.Constant(value=str()):
            return re.escape(node.value)
        case ast.FormattedValue():
            return ".+"
        case _:
            return ""


def test_no_page_needs_what_is_not_there():
    """Formulas are Unicode and HTML, and nothing is fetched while a page is read."""
    for page in DOCS.rglob("*.md"):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.search(r"\$[^$\n]*[\\_^][^$\n]*\$", text), page
        assert not re.search(r"(?:src|srcset)=[\"']https?:|!\[[^\]]*\]\(https?:", text), page
