"""STAMP packets are byte for byte those of the vectors, and any bytes are read or refused."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.packets import stamp

DATA = Path(__file__).parents[2] / "data/stamp-vectors.txt"
LINES = re.findall(r"^(V\d+) .*\[(\d+)\]\n  (\S+)$", DATA.read_text(), re.MULTILINE)
VECTORS = {name: bytes.fromhex(text) for name, _, text in LINES}

KEY = bytes(range(32))
T1, T2, T3 = (1_700_000_000_000_000_000 + part * 250_000_000 for part in (1, 2, 3))
ESTIMATE = 0x8A01
PTP_ESTIMATE = 0x5401
NTP_1, NTP_2, NTP_3 = (stamp.ntp_timestamp(each) for each in (T1, T2, T3))
RECEIVED_TOS = 46 << 2 | 1
UNDERSTOOD: stamp.Answers = {
    stamp.EXTRA_PADDING: stamp.as_received,
    stamp.CLASS_OF_SERVICE: lambda value: stamp.answer_class_of_service(
        value, RECEIVED_TOS, frozenset({0, 46})
    ),
    stamp.ACCESS_REPORT: stamp.as_received,
}


def reply(request: str, **other: object) -> bytes:
    """Return the answer to a vector as a reflector makes it whose clock reads T2 and T3."""
    key = KEY if request == "V6" else None
    read = stamp.read_request(VECTORS[request], key)
    values = {"sequence": read.sequence, "ttl": 255} | other
    tlvs = stamp.reflect_tlvs(
        read.tlvs, UNDERSTOOD, sequence=read.sequence, reply_sequence=values["sequence"], key=key
    )
    return stamp.make_reply(read, NTP_3, NTP_2, ESTIMATE, tlvs=tlvs, key=key, **values)


def reflected(tlvs: bytes, answers: stamp.Answers = UNDERSTOOD, **other: object) -> bytes:
    numbers = {"sequence": 1, "reply_sequence": 2} | other
    return stamp.reflect_tlvs(tlvs, answers, **numbers)


def test_vectors_have_their_lengths() -> None:
    """The file of vectors was read whole."""
    assert {name: str(len(VECTORS[name])) for name in VECTORS} == {
        name: length for name, length, _ in LINES
    }
    assert len(VECTORS) == 15


HMAC_TLVS = stamp.make_tlv(stamp.CLASS_OF_SERVICE, bytes.fromhex("b8000000")) + stamp.make_tlv(
    stamp.DIRECT_MEASUREMENT, bytes.fromhex("0000000b") + bytes(8)
)
TLVS_8 = stamp.make_tlv(stamp.CLASS_OF_SERVICE, bytes.fromhex("b8000000")) + stamp.make_tlv(
    stamp.EXTRA_PADDING, bytes(12)
)
PTP_1 = stamp.ptp_timestamp(T1)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("V1", stamp.make_request(7, NTP_1, ESTIMATE)),
        ("V4", stamp.make_request(8, PTP_1, PTP_ESTIMATE, ssid=0x1234)),
        ("V6", stamp.make_request(7, NTP_1, ESTIMATE, key=KEY)),
        ("V8", stamp.make_request(9, NTP_1, ESTIMATE, tlvs=TLVS_8)),
        (
            "V10",
            stamp.make_request(
                10, NTP_1, ESTIMATE, tlvs=HMAC_TLVS + stamp.make_hmac_tlv(KEY, 10, HMAC_TLVS)
            ),
        ),
        (
            "V11",
            stamp.make_request(
                11,
                NTP_1,
                ESTIMATE,
                tlvs=stamp.make_tlv(200, b"abcd") + bytes.fromhex("800400280102"),
            ),
        ),
        ("V13", stamp.make_request(12, NTP_1, ESTIMATE)[:14]),
        ("V15", stamp.make_request(0, stamp.ntp_timestamp(2085978496_500000000), 1)),
    ],
)
def test_requests_are_those_of_the_vectors(name: str, made: bytes) -> None:
    """A sender's packets, open and authenticated, with either format and TLVs, are the vectors."""
    assert made.hex() == VECTORS[name].hex()


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("V2", reply("V1")),
        ("V3", reply("V1", sequence=3, ttl=61)),
        ("V5", reply("V4", ttl=64)),
        ("V7", reply("V6")),
        ("V9", reply("V8")),
        ("V12", reply("V11")),
        ("V14", reply("V13", ttl=64)),
    ],
)
def test_replies_are_those_of_the_vectors(name: str, made: bytes) -> None:
    """A reflector's packets are the vectors."""
    assert made.hex() == VECTORS[name].hex()


def test_a_reply_is_read() -> None:
    """Each field of a reply is read as it was made, authenticated or not."""
    for name, key, sequence, ttl in (
        ("V2", None, 7, 255),
        ("V3", None, 3, 61),
        ("V7", KEY, 7, 255),
    ):
        found = stamp.read_reply(VECTORS[name], key)
        assert found == (
            *(sequence, NTP_3, ESTIMATE, 0, NTP_2),
            *(7, NTP_1, ESTIMATE, ttl, b""),
        )


def test_a_reply_of_twamp_light_may_be_short() -> None:
    """Of 38 bytes on, a reply is read; it has the TTL from the 41st byte on."""
    whole = VECTORS["V3"]
    assert stamp.read_reply(whole[:38]).sender_ttl is None
    assert stamp.read_reply(whole[:40]).sender_ttl is None
    assert stamp.read_reply(whole[:41]).sender_ttl == 61
    with pytest.raises(stamp.PacketError, match="37 bytes of 38"):
        stamp.read_reply(whole[:37])


@pytest.mark.parametrize("length", [0, 1, 13])
def test_a_short_request_is_refused(length: int) -> None:
    """A packet without a whole error estimate is no request."""
    with pytest.raises(stamp.PacketError) as caught:
        stamp.read_request(VECTORS["V1"][:length])
    assert caught.value.reason == stamp.SHORT


@pytest.mark.parametrize("length", [14, 15, 16, 43, 44, 45, 51, 52, 53, 111, 112, 1472, 65507])
def test_a_reply_is_as_long_as_the_request(length: int) -> None:
    """From the base packet on; a shorter request gets the base packet."""
    request = stamp.read_request(VECTORS["V1"].ljust(length, b"\0")[:length])
    tlvs = reflected(request.tlvs)
    made = stamp.make_reply(request, NTP_3, NTP_2, ESTIMATE, sequence=7, ttl=1, tlvs=tlvs)
    assert len(made) == max(44, length)


def test_a_multiplier_of_0_is_corrupt() -> None:
    """Neither end uses a packet whose error estimate has the multiplier 0."""
    for read, packet in (
        (stamp.read_request, stamp.make_request(1, NTP_1, 0x8A00)),
        (stamp.read_reply, VECTORS["V2"][:12] + b"\x8a\0" + VECTORS["V2"][14:]),
    ):
        with pytest.raises(stamp.PacketError) as caught:
            read(packet)
        assert caught.value.reason == stamp.CORRUPT


@pytest.mark.parametrize("place", range(112))
def test_a_changed_byte_is_unauthentic(place: int) -> None:
    """One other bit anywhere in an authenticated packet makes it unauthentic."""
    for read, name in ((stamp.read_request, "V6"), (stamp.read_reply, "V7")):
        packet = bytearray(VECTORS[name])
        packet[place] ^= 1
        with pytest.raises(stamp.PacketError) as caught:
            read(bytes(packet), KEY)
        assert caught.value.reason == stamp.UNAUTHENTIC


def test_a_short_packet_is_unauthentic() -> None:
    """So is an open packet, where there is a key."""
    with pytest.raises(stamp.PacketError, match="44 bytes of 112"):
        stamp.read_request(VECTORS["V1"], KEY)


# --- times ------------------------------------------------------------------------------------


@given(st.integers(0, 2**64))
def test_a_time_survives_both_formats(time_ns: int) -> None:
    """A timestamp means the nanosecond that it was made from, in either format and in any era."""
    near = time_ns + 10**18
    assert stamp.time_of(stamp.ntp_timestamp(time_ns), 1, near) == time_ns
    assert stamp.time_of(stamp.ptp_timestamp(time_ns), stamp.PTP | 1, near) == time_ns


def test_eras() -> None:
    """The second of 2036 in which NTP's seconds begin again is read as such."""
    era_1 = 2_085_978_496_500_000_000
    assert stamp.ntp_timestamp(era_1) == VECTORS["V15"][4:12]
    assert stamp.time_of(VECTORS["V15"][4:12], 1, era_1 - 10**9) == era_1


@given(error=st.integers(0, 2**63), synchronised=st.booleans(), ptp=st.booleans())
def test_an_error_estimate_is_never_too_small(error: int, *, synchronised: bool, ptp: bool) -> None:
    """It is at least the error, at most a hundredth more (and 0.25 ns), and never 0."""
    made = stamp.make_error_estimate(error, is_synchronised=synchronised, is_ptp=ptp)
    assert made & 0xFF
    assert bool(made & stamp.SYNCHRONISED) == synchronised
    assert bool(made & stamp.PTP) == ptp
    assert error * (1 - 1e-9) <= stamp.error_ns(made) <= error * 1.01 + 0.25


def test_error_estimates() -> None:
    """Known estimates mean what they are known for; the largest stays the largest."""
    assert round(stamp.error_ns(ESTIMATE)) == 238
    assert round(stamp.error_ns(PTP_ESTIMATE) / 1000) == 244
    assert stamp.make_error_estimate(10**30, is_synchronised=False) == 0x3FFF


# --- TLVs -------------------------------------------------------------------------------------


def test_tlvs_are_read() -> None:
    """Each with its flags, type and value; the one that the packet ends in with what there is."""
    assert stamp.read_tlvs(VECTORS["V12"][44:]) == (
        (stamp.UNRECOGNISED, 200, b"abcd"),
        (stamp.MALFORMED, stamp.CLASS_OF_SERVICE, b"\1\2"),
    )


def test_a_wrong_length_is_malformed() -> None:
    """A TLV of a wrong length is marked M, and what follows is returned as it came."""
    rest = stamp.make_tlv(stamp.EXTRA_PADDING, b"abc")
    made = reflected(stamp.make_tlv(stamp.CLASS_OF_SERVICE, bytes(5)) + rest)
    assert made == stamp.make_tlv(4, bytes(5), stamp.MALFORMED) + rest


def test_an_unknown_one_that_is_cut_has_both_flags() -> None:
    """A TLV of an unknown type within which the packet ends is marked U and M."""
    assert reflected(bytes.fromhex("00c8000961")) == bytes.fromhex("c0c8000961")


def test_what_sends_to_others_is_not_understood() -> None:
    """Return path and reflected test packet control come back with U, also if it was not set."""
    for kind in (10, 12):
        assert reflected(stamp.make_tlv(kind, bytes(8), 0)) == stamp.make_tlv(kind, bytes(8), 0x80)


def test_padding_of_zeros_stays() -> None:
    """The padding of TWAMP Light, zeros, is no TLV."""
    assert reflected(bytes(1400)) == bytes(1400)


def test_many_tlvs_are_not_looked_at() -> None:
    """After 32 TLVs the others come back as they were sent: not understood."""
    one = stamp.make_tlv(stamp.EXTRA_PADDING, b"")
    made = reflected(one * 10_000)
    assert made == stamp.make_tlv(stamp.EXTRA_PADDING, b"", 0) * 32 + one * 9968


def test_the_hmac_tlv_of_a_reply_is_its_own() -> None:
    """A request with the right HMAC TLV is answered with one over the reply's number and TLVs."""
    sent = HMAC_TLVS + stamp.make_hmac_tlv(KEY, 1, HMAC_TLVS)
    padding = stamp.make_tlv(stamp.EXTRA_PADDING, bytes(3))
    assert stamp.are_tlvs_authentic(sent, 1, KEY)
    made = reflected(sent + padding, key=KEY)
    assert [each.flags for each in stamp.read_tlvs(made)] == [0, stamp.UNRECOGNISED, 0, 0]
    assert stamp.are_tlvs_authentic(made, 2, KEY)
    assert not stamp.are_tlvs_authentic(made, 1, KEY)


@pytest.mark.parametrize(
    "change",
    [
        lambda sent: sent[:6] + b"\1" + sent[7:],
        lambda sent: sent[:-1] + bytes([sent[-1] ^ 1]),
        lambda sent: sent + stamp.make_tlv(stamp.ACCESS_REPORT, bytes(4)),
        lambda sent: sent + stamp.make_hmac_tlv(KEY, 1, sent),
        lambda _: HMAC_TLVS,
    ],
    ids=["value", "hmac", "one behind it", "two", "none"],
)
def test_a_wrong_hmac_tlv_marks_all(change: object) -> None:
    """All TLVs come back as they were, marked I, if the HMAC TLV is wrong, misplaced or missing."""
    sent = change(HMAC_TLVS + stamp.make_hmac_tlv(KEY, 1, HMAC_TLVS))
    made = reflected(sent, key=KEY, is_authenticated=True)
    assert not stamp.are_tlvs_authentic(sent, 1, KEY)
    for before, after in zip(stamp.read_tlvs(sent), stamp.read_tlvs(made), strict=True):
        assert after == before._replace(flags=before.flags | stamp.INTEGRITY)


def test_extra_padding_alone_needs_no_hmac() -> None:
    """The one exception of RFC 8972, 4.8."""
    padding = stamp.make_tlv(stamp.EXTRA_PADDING, b"abc")
    made = reflected(padding, key=KEY, is_authenticated=True)
    assert made == stamp.make_tlv(stamp.EXTRA_PADDING, b"abc", 0)
    assert stamp.are_tlvs_authentic(made, 2, KEY)


def test_without_a_key_an_hmac_tlv_is_not_understood() -> None:
    """It cannot be verified, which is said by U; the others are answered."""
    made = reflected(VECTORS["V10"][44:])
    assert [each.flags for each in stamp.read_tlvs(made)] == [0, 0x80, 0x80]


def test_a_dscp_that_is_not_permitted() -> None:
    """Is answered with RP, and with the DSCP that the request came with."""
    permitted = frozenset({0})
    made = stamp.answer_class_of_service(bytes.fromhex("b800ffff"), 10 << 2 | 3, permitted)
    assert made == (46 << 10 | 10 << 4 | 3 << 2 | 1).to_bytes(2, "big") + bytes(2)
    assert stamp.reply_dscp(bytes.fromhex("b8000000"), 10 << 2, permitted) == 10
    assert stamp.reply_dscp(bytes.fromhex("b8000000"), 10 << 2, frozenset({46})) == 46


def test_an_answer_may_decline() -> None:
    """A type whose answer is None comes back as it was, with U."""
    sent = stamp.make_tlv(stamp.DESTINATION_ADDRESS, bytes(4), 0)
    assert reflected(sent, {stamp.DESTINATION_ADDRESS: lambda _: None}) == stamp.make_tlv(
        stamp.DESTINATION_ADDRESS, bytes(4)
    )
