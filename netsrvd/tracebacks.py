"""What is shown of a bug."""


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an exception, as Python prints it."""
    import traceback  # noqa: PLC0415 - a start needs none, and it takes its time

    return "".join(traceback.format_exception(error))
