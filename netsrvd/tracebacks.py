"""What is shown of a bug."""


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an exception, as Python prints it.

    If that fails, as for an exception whose own code is faulty, return only where it was raised.
    """
    try:
        import traceback  # noqa: PLC0415 - a start needs none, and it takes its time

        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - the record matters more than its traceback
        return f"{type(error).__name__} at {place_of(error)}\n"


def described(error: BaseException) -> str:
    """Return `repr(error)`, or the name of its type if its own code fails."""
    try:
        return repr(error)
    except BaseException:  # noqa: BLE001 - that code may do anything
        return f"{type(error).__name__}, whose repr() fails"


def place_of(error: BaseException) -> str:
    """Return the file and line that raised an exception, "?" for one that was never raised."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
