"""The paper and the index of results say what the committed results say, and nothing typed by hand."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAPER, RESULTS = ROOT / "paper", ROOT / "docs" / "results"


@pytest.fixture(scope="module")
def paper():
    spec = importlib.util.spec_from_file_location("render", PAPER / "render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def template():
    return (PAPER / "template.md").read_text(encoding="utf-8")


def test_the_paper_is_what_the_results_say(paper):
    assert (PAPER / "paper.md").read_text(encoding="utf-8") == paper.render(template()), "make paper, and read what changed"


def test_another_result_is_another_paper(paper, tmp_path):
    results = shutil.copytree(RESULTS, tmp_path / "results")
    page = results / "predicts.md"
    page.write_text(page.read_text(encoding="utf-8").replace("0.916 [0.897, 0.932]", "0.816 [0.797, 0.832]"), encoding="utf-8")
    assert "0.816 [0.797, 0.832]" in paper.render(template(), results)
    page.write_text("nothing", encoding="utf-8")
    with pytest.raises(LookupError, match="0 rows begin with"):
        paper.render(template(), results)


def test_no_number_is_typed_by_hand():
    """Digits stand in names alone (PH2, float32) and in what is looked up."""
    body = re.sub(r"\{\{.*?\}\}|\[[^\]]*@[^\]]*\]|<!--.*?-->", "", template().split("---", 2)[2], flags=re.DOTALL)
    assert not re.findall(r"(?<![A-Za-z\d])\d[\d.,]*", body)


def test_what_is_cited_is_in_the_bibliography_and_the_reverse():
    cited = set(re.findall(r"@([a-z]+\d{4}[a-z]+)", template()))
    assert cited == set(re.findall(r"^@\w+\{(\w+),", (PAPER / "paper.bib").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize(
    ("row", "column", "under", "words"),
    [("none", "b", "", "0 rows"), ("x", "b", "", "2 rows"), ("x", "c", "", "0 rows"), ("x", "b", "Nowhere", "0 headings")],
)
def test_a_lookup_that_finds_not_just_one_is_refused(paper, tmp_path, row, column, under, words):
    (tmp_path / "p.md").write_text(
        "# One\n\n| a | b |\n|---|---|\n| x | **1.5** [1, 2] (2 seeds) |\n\n# Two\n\n| a | b |\n|---|---|\n| x | 3 |\n"
    )
    cell = paper.lookups(tmp_path)["cell"]
    assert (cell("p.md", "x", "b", "One"), cell("p.md", "x", "b", "Two")) == ("1.5 [1, 2]", "3")
    with pytest.raises(LookupError, match=words):
        cell("p.md", row, column, under)


def index_rows():
    for line in (RESULTS / "index.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if (pages := re.findall(r"\]\(([\w/-]+\.md)\)", cells[0])) and len(cells) == 6:
            yield pages, cells


def test_every_page_of_results_is_in_the_index():
    listed = {page for pages, _ in index_rows() for page in pages}
    assert listed == {path.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*.md")} - {"index.md"}


def test_the_numbers_of_the_index_are_those_of_its_pages():
    counted = 0
    for pages, (_, shows, _, _, _, date) in index_rows():
        text = " ".join((RESULTS / page).read_text(encoding="utf-8") for page in pages)
        stated = set(re.findall(r"\d+(?:[.,]\d+)*", text))
        missing = [number for number in re.findall(r"\d+(?:[.,]\d+)*", re.sub(r"PH2|float32|bfloat16", "", shows)) if number not in stated]
        assert not missing, (pages, missing)
        assert date in text, pages
        counted += 1
    assert counted >= 14


def test_the_citation_file_is_complete():
    """Required by version 1.2.0 of its schema, and the version that is released."""
    import yaml

    import somite

    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "title", "message", "authors"} <= set(found)
    assert found["cff-version"] == "1.2.0"
    assert found["version"] == somite.__version__
    assert all("name" in author or "family-names" in author for author in found["authors"])
