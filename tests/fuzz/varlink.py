"""A message to the control socket: any bytes are a call, or the one named error."""

from netsrvd.control.callers import NoCallError, read_call


def check(data: bytes) -> None:
    """Read the input as a message."""
    try:
        call = read_call(data)
    except NoCallError:
        return
    assert isinstance(call.method, str)
    assert isinstance(call.parameters, dict)
    assert {type(call.more), type(call.oneway)} == {bool}
