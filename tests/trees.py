"""Recipes as trees, compared."""


def flat(tree, at=""):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return {key: value for name, part in items for key, value in flat(part, f"{at}/{name}").items()} or {at: tree}


def differing(tree, base):
    ours, theirs = flat(tree), flat(base)
    return {key.split("init_args/")[-1] for key in {*ours} | {*theirs} if ours.get(key) != theirs.get(key)}
