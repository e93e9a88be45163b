"""The one error type that a user is meant to read."""


class UserError(Exception):
    """Something the user can mend: one sentence that names the thing and the remedy.

    The harness prints the sentence without a traceback and exits with code 2.
    Everything else that is raised is a defect and keeps its traceback.
    """
