"""README.md of a run folder: a model card that says what the weights are, how to use them, and what they are not for."""

import json
import shlex
from html import escape
from pathlib import Path
from typing import Any

from ..errors import one_line
from ..files import write_text
from ..pipeline import Run
from ..trust import foreign, values
from ..wording import count, number, size
from . import words
from .findings import History, evaluation, history, method, network, source, title, weights


def write_card(run: Run) -> Path:
    """Write README.md into the run folder, with the evaluation's table if metrics.json is there."""
    path = run.path / "README.md"
    write_text(path, card(run, run.path.resolve().name, title(run, history(run.path).environment)))
    return path


def card(run: Run, name: str, heading: str, about: str = "") -> str:
    """name: by which the run is opened. about: what is to be said of its data beside their number."""
    past = history(run.path)
    parts = [what(run, heading), use(run, name), data(past, about.strip()), training(run, past), scores(run, name), limits(), citation(run)]
    return "\n\n".join(part for part in parts if part) + "\n"


def what(run: Run, heading: str) -> str:
    members, steps = run.recipe.task.members, run.method.steps
    facts = [
        f"- **Network:** {network(run)}, {weights(run):,} weights",
        f"- **Method:** {method(run)}, {count(steps, 'reverse step')}, {count(members, 'member')} a case",
        "- **Recipe:** `recipe.yaml`, every default written out",
    ]
    return f"# {escape(one_line(heading), quote=False)}\n\n**{words.NOTICE}**\n\n" + "\n".join(facts)


def use(run: Run, name: str) -> str:
    members = run.recipe.task.members
    recipe = run.path / "recipe.yaml"
    theirs = foreign(recipe, values(recipe))
    shell = f"somite predict {shlex.quote(name)} IMAGE --out predictions --members {members}{' --trust' if theirs else ''}"
    python = "\n".join(
        [
            "import somite",
            "",
            f"run = somite.load({json.dumps(name, ensure_ascii=False)}{', trust=True' if theirs else ''})",
            f'result = run.predict("image.png", members={members})',
            ", ".join(f"result.{name}" for name in run.recipe.task.fields) or "result",
        ]
    )
    lead = (
        f"The recipe names `{one_line(theirs)}`, which does not come with somite: its file has to be on `PYTHONPATH`.\n\n" if theirs else ""
    )
    return f"## Use\n\n{lead}```sh\n{shell}\n```\n\n```python\n{python}\n```"


def data(past: History, about: str) -> str:
    found, told = past.environment.get("data"), [about] if about else []
    if found:
        told.append(counted(found))
    return "\n\n".join(["## Data", *told]) if told else ""


def counted(found: dict[str, Any]) -> str:
    cases, groups, files = (count(found[f"{noun}s"], noun) for noun in ("case", "group", "file"))
    counts = f"{cases} of {groups}, {files}, {size(found['bytes'])}"
    return f"Train and validation splits: {counts}. SHA-256 over ids and contents: `{found['digest']}`."


def training(run: Run, past: History) -> str:
    if not past.environment:
        return "## Training\n\nNot recorded: the weights come from elsewhere."
    made, options = past.environment, run.recipe.training
    machine = ", ".join(made["gpus"]) or f"{made['processor']}, {count(made['threads'], 'thread')}"
    lines = [f"- {count(options.steps, 'step')} at most, batches of {options.batch}, seed {options.seed}"]
    if past.best and past.best["step"]:
        lines.append(
            f"- best validation {run.recipe.task.score_name} {number(past.best['score'])} at step {past.best['step']}: these weights were kept"
        )
    versions = ", ".join(f"{name} {version}" for name, version in made["packages"].items())
    lines += [f"- on {machine}; Python {made['python']}, {versions}", f"- {made['date']}: `{made['command']}`"]
    return "## Training\n\n" + "\n".join(lines)


def scores(run: Run, name: str) -> str:
    if not (run.path / "metrics.json").is_file():
        return f"## Evaluation\n\nNot evaluated yet: `somite evaluate {name}`."
    found = evaluation(run.path, run.path)
    view = run.recipe.task.view(found)
    head = words.sentence(found.summary, view, len({row["case"] for row in found.rows}))
    table = ["| | mean | 95 % interval | | |", "|---|---:|---:|---|---|"]
    table += [f"| {line.name} | {line.mean} | {line.interval} | {line.better} | {line.text} |" for line in words.lines(view)]
    notes = " ".join(["Intervals are percentiles of a bootstrap over groups.", *(f"{lead} {text}" for lead, text in view.notes)])
    return f"## Evaluation\n\n{head} {notes}\n\n" + "\n".join(table)


def limits() -> str:
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in words.LIMITS)


def citation(run: Run) -> str:
    return f"## Citation\n\n{source(run)} Made with somite."
