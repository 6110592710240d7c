"""The one error that is the user's to mend."""


class InputError(ValueError):
    """Something the user gave is wrong: one sentence that names the file or option and the mend.

    The command line prints it on one line and exits with code 2; any other exception is our fault and exits with 1.
    """
