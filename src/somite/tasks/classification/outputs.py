"""A prediction as files: one a case, so that what is interrupted goes on, and a table of all that are there."""

import csv
from pathlib import Path

from ...files import read_json, replacing, write_json
from .answer import Classified

ENDING = "_answer"


def write(answer: Classified, out: Path) -> Path:
    """CASE_answer.json: the answer and the probability of each class, and its spread over several members."""
    told = {
        "id": answer.record.case.id,
        "answer": answer.answer,
        "probabilities": named(answer, answer.probability),
        "members": len(answer.members),
    }
    if len(answer.members) > 1:
        told["spread"] = named(answer, answer.spread)
    path = out / f"{answer.record.case.id}{ENDING}.json"
    write_json(path, told)
    return path


def named(answer: Classified, values) -> dict[str, float]:  # noqa: ANN001 - (k,)
    return {name: round(float(value), 6) for name, value in zip(answer.names, values, strict=True)}


def gather(out: Path) -> list[Path]:
    """predictions.csv of the answers in a folder: id, a column a class, the answer."""
    found = [read_json(path) for path in sorted(out.glob(f"*{ENDING}.json"))]
    if not found:
        return []
    path = out / "predictions.csv"
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = list(found[0]["probabilities"])
        writer.writerow(["id", *names, "answer"])
        writer.writerows([one["id"], *(one["probabilities"][name] for name in names), "; ".join(one["answer"])] for one in found)
    return [path]
