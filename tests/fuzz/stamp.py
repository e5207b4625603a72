"""STAMP and UDPEchoPlus packets: any bytes are a packet, or the one named error."""

from netsrvd.packets import stamp, udpechoplus

KEY = bytes(range(32))
REASONS = {stamp.SHORT, stamp.CORRUPT, stamp.UNAUTHENTIC}
NOW_NS = 1_700_000_000_000_000_000
ANSWERS: stamp.Answers = {
    stamp.EXTRA_PADDING: stamp.as_received,
    stamp.CLASS_OF_SERVICE: lambda value: stamp.answer_class_of_service(value, 0, frozenset()),
    stamp.FOLLOW_UP_TELEMETRY: lambda _: bytes(16),
    stamp.DESTINATION_ADDRESS: lambda _: None,
}


def check(data: bytes) -> None:
    """Read the input as a request and as a reply, with a key and without one, and answer it."""
    for key in (None, KEY):
        base = data[:96] + stamp.digest(KEY, data[:96]) + data[96:] if key else data
        _answer(base, key)
        try:
            reply = stamp.read_reply(base, key)
        except stamp.PacketError as error:
            assert error.reason in REASONS
        else:
            time_ns = stamp.time_of(reply.timestamp, reply.error_estimate, NOW_NS)
            assert abs(time_ns - NOW_NS) <= 2**31 * 10**9 + 10**9
            stamp.are_tlvs_authentic(reply.tlvs, reply.sequence, KEY)
    read = udpechoplus.read(data)
    if read is not None:
        assert len(udpechoplus.make_reply(data, *read[1:5])) == len(data)
        assert udpechoplus.make_reply(data, *read[1:5]) == data


def _answer(data: bytes, key: bytes | None) -> None:
    try:
        request = stamp.read_request(data, key)
    except stamp.PacketError as error:
        assert error.reason in REASONS
        assert str(error).isprintable()
        return
    made = stamp.reflect_tlvs(
        request.tlvs,
        ANSWERS,
        sequence=request.sequence,
        reply_sequence=7,
        key=KEY,
        is_authenticated=key is not None,
    )
    reply = stamp.make_reply(request, bytes(8), bytes(8), 1, sequence=7, ttl=64, tlvs=made, key=key)
    base = stamp.OPEN_BYTES if key is None else stamp.AUTHENTICATED_BYTES
    assert len(reply) == max(len(data), base)
    read = stamp.read_reply(reply, key)
    assert read.sender_sequence == request.sequence
    assert read.tlvs == made
    before, after = stamp.read_tlvs(request.tlvs), stamp.read_tlvs(made)
    assert [(each.type, len(each.value)) for each in before] == [
        (each.type, len(each.value)) for each in after
    ]
