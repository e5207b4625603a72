"""The table of fuzz targets: a parser of bytes from outside each, and the promise it keeps.

A target is a plain function of bytes. It returns where the promise holds (a value, or the one named
error) and raises whatever else it sees. `tests.fuzz.run` feeds it, and so does the ordinary suite,
with the inputs in tests/data/fuzz/<target>.
"""

from collections.abc import Callable

from tests.fuzz import (
    access,
    answers,
    configuration,
    datagram,
    environment,
    http,
    proxy,
    quotes,
    records,
    stamp,
    values,
    varlink,
)

Check = Callable[[bytes], None]

TARGETS: dict[str, Check] = {
    "access": access.check,
    "answers": answers.check,
    "configuration": configuration.check,
    "datagram": datagram.check,
    "environment": environment.check,
    "http": http.check,
    "proxy": proxy.check,
    "quotes": quotes.check,
    "records": records.check,
    "stamp": stamp.check,
    "values": values.check,
    "varlink": varlink.check,
}
