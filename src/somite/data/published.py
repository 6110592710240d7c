"""Lists of who is in which split, for public data sets that bring none, so that two papers can mean the same by "CVC-ClinicDB".

    cvc-clinicdb-by-sequence   no video stands in two splits (29 sequences; 408, 67 and 137 frames)
    cvc-clinicdb-by-frame      frames are dealt out at random, as most papers do: near copies of test frames are trained on
    btcv-fold-0 to -4          vox2vec's five folds over the 30 training scans of BTCV: 23 for training, 1 for validation, 6 for testing

A file holds {"train": [ids], "val": [ids], "test": [ids], "groups": {id: group}, "note": text}; ids are the files' names, with or
without leading zeros, or the numbers that these end with, where that is unambiguous (0021 is img0021 too).
"""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from ..files import read_json
from .listing import Hear, Source, check_splits, stop

FOLDER = Path(__file__).with_name("splits")


def resplit(source: Source, name: str, hear: Hear = stop) -> Source:
    """The same cases in the splits and groups of a file. Raises InputError for a file that does not fit them."""
    known = {path.stem: path for path in sorted(FOLDER.glob("*.json"))}
    path = known.get(name, Path(name))
    if not path.is_file():
        raise InputError(f"--data.splits {name}: there is no such file; with somite come {', '.join(known)}")
    content = read_json(path)
    groups = content.get("groups", {}) if isinstance(content, dict) else None
    if groups is not None and not isinstance(groups, dict):
        raise InputError(f'{path} has something else than {{id: group}} under "groups": mend it, or leave it out')
    splits = {key: ids for key, ids in content.items() if key not in ("note", "groups", "excluded")} if groups is not None else {}
    if not splits or not all(isinstance(ids, list) and all(isinstance(one, str) for one in ids) for ids in splits.values()):
        raise InputError(f'{path} should hold {{"train": [ids], "val": [ids], "test": [ids]}}')
    own = {**{case.lstrip("0"): case for case in source.cases}, **{case: case for case in source.cases}}
    ending = {case: found[0].lstrip("0") for case in source.cases if (found := re.search(r"\d+$", case))}
    often = Counter(ending.values())
    numbered = {number: case for case, number in ending.items() if often[number] == 1}

    def called(one: str) -> str:
        return own.get(one) or own.get(one.lstrip("0")) or numbered.get(one.lstrip("0")) or one

    named = {key: [called(one) for one in ids] for key, ids in splits.items()}
    of = {called(one): group for one, group in (groups or {}).items()}
    cases = {case: replace(record, group=str(of.get(case, record.group))) for case, record in source.cases.items()}
    return replace(source, cases=cases, splits=check_splits(path, named, cases, hear))
