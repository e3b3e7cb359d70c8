"""Errors that a user can act on."""


class InputError(ValueError):
    """Something that was given is not what it should be.

    The message names the file (or flag), the field and what was expected. The ``archon`` command ends with status 2 on
    it.
    """
