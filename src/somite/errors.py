"""The one error that is the user's to mend."""


def one_line(text: object) -> str:
    """Names of files and ids come from anywhere: what would break the line, or steer a terminal, is written out."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape", "replace").decode() for char in str(text))


class InputError(ValueError):
    """Something the user gave is wrong: one sentence that names the file or option and the mend.

    The command line prints it on one line and exits with code 2; any other exception is our fault and exits with 1.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(one_line(text))
