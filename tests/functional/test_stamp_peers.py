"""The reflector as programs of others see it: scapy sends, tshark dissects."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from time import time

from tests.functional.conftest import Start
from tests.functional.test_stamp import VECTORS, reflector, sender, timed
from tests.support.patience import SECONDS

SENDER = Path(__file__).parents[1] / "support/scapy_sender.py"
FIELDS = (
    *("udp.srcport", "twamp.test.seq_number", "twamp.test.timestamp", "twamp.test.error_estimate"),
    *("twamp.test.receive_timestamp", "twamp.test.sender_seq_number", "twamp.test.sender_ttl"),
    "twamp.test.sender_timestamp",
)

Output = Callable[..., str]


def output(*command: str | Path) -> str:
    """Return what a command says."""
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * SECONDS)
    assert made.returncode == 0, made.stderr
    return made.stdout


def test_scapy_and_tshark_agree(start: Start, port: int, tmp_path: Path) -> None:
    """A sender of scapy's gets a reply whose fields are what they should be, for both."""
    settings = reflector(port, stamp_clock="ntp", stamp_clock_error="0.001ms")
    start(settings)
    with sender("127.0.0.1", port) as asker:
        timed(asker, VECTORS["V1"])
    pcap = tmp_path / "stamp.pcap"
    before = time()
    found = json.loads(output("/usr/bin/python3", SENDER, "127.0.0.1", str(port), pcap))
    after = time()
    # scapy keeps times as floats, of which one is right to half a microsecond.
    assert before - 1e-5 <= found["received"] <= found["sent"] <= after + 1e-5
    expected = {
        "seq": 4711,
        "sender_seq": 4711,
        "ssid": 99,
        "length": 44,
        "sender_ttl": 64,
        "sender_time": 1_700_000_000.25,
        "sender_scale": 10,
        "is_synchronised": 1,
    }
    assert {name: found[name] for name in expected} == expected
    options = [option for name in FIELDS for option in ("-e", name)]
    text = output(
        *("tshark", "-r", pcap, "-d", f"udp.port=={port},twamp.test", "-Y", f"udp.srcport=={port}"),
        *("-T", "json", *options),
    )
    [packet] = json.loads(text)
    fields = {name: values[0] for name, values in packet["_source"]["layers"].items()}
    assert fields["twamp.test.seq_number"] == fields["twamp.test.sender_seq_number"] == "4711"
    assert fields["twamp.test.sender_ttl"] == "64"
    assert "22:13:20.25" in fields["twamp.test.sender_timestamp"]
    assert int(fields["twamp.test.error_estimate"], 0) & 0x8000
