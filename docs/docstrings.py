"""How the reference shows docstrings: somite explains parameters in running text (`members: samples a case. batch: ...`),
which becomes a list here, and its notes on deviations (`# Paper: ...`) are no headings. Loaded by mkdocs.yml.
"""

import re

import griffe


class Readable(griffe.Extension):
    def on_class(self, *, cls: griffe.Class, **_: object) -> None:
        parameters = getattr(cls.members.get("__init__"), "parameters", ())
        rewrite(cls, [parameter.name for parameter in parameters])

    def on_function(self, *, func: griffe.Function, **_: object) -> None:
        rewrite(func, [parameter.name for parameter in func.parameters])


def rewrite(member: griffe.Object, parameters: list[str]) -> None:
    if member.docstring:
        member.docstring.value = listed(member.docstring.value, parameters)


def listed(text: str, parameters: list[str]) -> str:
    """Each "name: ..." or "name, other: ..." of a parameter as an item of a list; comments as italics."""
    text = re.sub(r"(?<!`)\((?:[\w. |]+, )*\*(?:s|native)\)(?!`)", r"`\g<0>`", text)  # a shape
    text = re.sub(r"(?<![\w*])\*(?=s\b)(?![^`\n]*`)", r"\\*", text)  # and its asterisk elsewhere
    text = re.sub(r"^# (\w[^:\n]*):", r"*\1*:", text, flags=re.MULTILINE)
    known = "|".join(map(re.escape, sorted(set(parameters) - {"self"}, key=len, reverse=True)))
    if not known:
        return text
    head = re.compile(rf"(?:^|(?<=[.;)] ))((?:{known})(?:, (?:{known}))*): ", re.MULTILINE)
    items = re.sub(r"\n(?:\n)+- ", "\n\n- ", head.sub(lambda found: f"\n\n- `{found[1]}`: ", text))
    return re.sub(r"[ \n]Raises ", "\n\nRaises ", items).strip()  # a paragraph of its own
