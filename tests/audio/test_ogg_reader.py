"""Ogg Vorbis and Opus: streams that are chained, cut, damaged or odd, compared with libsndfile on the whole ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile

from distill._native import ByteSource
from distill.audio import load_audio
from distill.audio.decode import decode_blocks
from distill.audio.readers.protocol import SoundError
from distill.audio.readers.table import open_sound
from distill.errors import AudioFileError
from ogg_files import CONTINUED, FIRST, LAST, Page, changed_header, encoded, join, moved, pages_of
from sounds import noise, sine

CODECS = ["VORBIS", "OPUS"]
SECONDS = 6
# What must be equal is decoded by the same library, from the same packets.
EXACT = {"rtol": 0, "atol": 1e-7}


def decode(path) -> tuple[list[tuple[int, np.ndarray]], str]:
    """Return rate and samples of each part of a file, and why it is partial."""
    sound = open_sound(ByteSource(path))
    parts, reason = [], ""
    assert sound.frames is None
    try:
        for samples, rate in sound.blocks():
            if parts and (parts[-1][0], parts[-1][1].shape[1]) == (rate, samples.shape[1]):
                parts[-1] = rate, np.concatenate([parts[-1][1], samples])
            else:
                parts.append((rate, samples.copy()))
    except SoundError as error:
        reason = error.reason
    sound.close()
    return parts, reason


def one_part(path) -> tuple[np.ndarray, str]:
    parts, reason = decode(path)
    assert len(parts) == 1
    return parts[0][1], reason


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A stereo file of each codec: its pages, and the samples that libsndfile reads from it."""
    folder = tmp_path_factory.mktemp("ogg")
    samples = np.stack([sine(440, SECONDS, 48_000), noise(1, SECONDS * 48_000)], axis=1)
    files = {codec: encoded(folder / f"{codec}.ogg", codec, samples, 48_000) for codec in CODECS}
    return {
        codec: (pages_of(path), soundfile.read(path, dtype="float32", always_2d=True)[0])
        for codec, path in files.items()
    }


def pages_with_sound(pages: list[Page]) -> int:
    """Return the index of the first page with sound."""
    return next(index for index, page in enumerate(pages) if page.position > 0)


def skipped(pages: list[Page]) -> int:
    """Return how many frames are skipped at the start of a stream, as Opus says in its header."""
    head = pages[0].body
    return int.from_bytes(head[10:12], "little") if head.startswith(b"OpusHead") else 0


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("rate", "channels"), [(48_000, 1), (16_000, 2), (8_000, 1), (48_000, 6)])
def test_rate_channels_and_length_are_those_of_the_stream(tmp_path, codec, rate, channels):
    samples = np.stack([noise(channel, rate + 77) for channel in range(channels)], axis=1)
    path = encoded(tmp_path / "a.ogg", codec, samples, rate)
    ((found_rate, found),), reason = decode(path)
    assert reason == ""
    if codec == "VORBIS":
        expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
        assert found_rate == rate
        np.testing.assert_allclose(found, expected, **EXACT)
    else:
        assert (found_rate, found.shape) == (48_000, ((rate + 77) * 48_000 // rate, channels))


@pytest.mark.parametrize("rate", [0, 8_000, 16_000, 44_100])
def test_opus_is_48_khz_sound_whatever_its_header_says_of_the_input(tmp_path, whole, rate):
    pages, expected = whole["OPUS"]
    path = join(tmp_path / "a.opus", changed_header(pages[0], 12, rate.to_bytes(4, "little")), *pages[1:])
    ((found_rate, found),), reason = decode(path)
    assert (found_rate, reason) == (48_000, "")
    np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.parametrize("gain_db", [-6, 3.5])
def test_the_gain_in_the_header_of_opus_is_applied(tmp_path, whole, gain_db):
    pages, expected = whole["OPUS"]
    gain = round(256 * gain_db).to_bytes(2, "little", signed=True)
    found, reason = one_part(join(tmp_path / "a.opus", changed_header(pages[0], 16, gain), *pages[1:]))
    assert reason == ""
    np.testing.assert_allclose(found, expected * 10 ** (gain_db / 20), rtol=0, atol=1e-6)


@pytest.mark.parametrize("codec", CODECS)
def test_granule_positions_that_begin_above_zero_change_nothing(tmp_path, whole, codec):
    pages, expected = whole[codec]
    found, reason = one_part(join(tmp_path / "a.ogg", *moved(pages, 10_000_000)))
    assert reason == ""
    np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.parametrize("codec", CODECS)
def test_a_recording_of_a_stream_begins_in_the_middle(tmp_path, whole, codec):
    pages, expected = whole[codec]
    first = pages_with_sound(pages)
    later = (first + len(pages)) // 2
    found, reason = one_part(join(tmp_path / "a.ogg", *pages[:first], *pages[later:]))
    assert reason == ""
    # Of its first page, Vorbis loses the first half of a block, Opus what is skipped at every start.
    missing = pages[-1].position - pages[later - 1].position - len(found)
    assert missing == skipped(pages) if codec == "OPUS" else 0 < missing <= 1024
    # A decoder of Opus needs a moment until its state is as it was.
    np.testing.assert_allclose(found[9_600:], expected[len(expected) - len(found) + 9_600 :], rtol=0, atol=2e-3)


def test_a_vorbis_stream_may_begin_before_position_zero(tmp_path, whole):
    pages, expected = whole["VORBIS"]
    found, reason = one_part(join(tmp_path / "a.ogg", *moved(pages, -300)))
    assert reason == ""
    np.testing.assert_allclose(found, expected[300:], **EXACT)


@pytest.mark.parametrize("codec", CODECS)
def test_the_end_is_where_the_last_page_says(tmp_path, whole, codec):
    pages, expected = whole[codec]
    last = replace(pages[-1], position=pages[-1].position - 100)
    found, reason = one_part(join(tmp_path / "a.ogg", *pages[:-1], last))
    assert reason == ""
    np.testing.assert_allclose(found, expected[:-100], **EXACT)


@pytest.mark.parametrize("codec", CODECS)
def test_a_stream_of_one_page(tmp_path, codec):
    path = encoded(tmp_path / "a.ogg", codec, sine(440, 0.01, 48_000), 48_000)
    assert pages_of(path)[-1].sequence == pages_with_sound(pages_of(path))
    found, reason = one_part(path)
    assert (len(found), reason) == (480, "")
    np.testing.assert_allclose(found, soundfile.read(path, dtype="float32", always_2d=True)[0], **EXACT)


@pytest.mark.parametrize("codec", CODECS)
def test_chained_streams_give_all_of_their_sound(tmp_path, whole, codec):
    pages, expected = whole[codec]
    mono = encoded(tmp_path / "mono.ogg", "VORBIS", noise(5, 40_000), 22_050)
    path = join(tmp_path / "a.ogg", *pages, mono.read_bytes(), *pages, *pages)
    parts, reason = decode(path)
    assert reason == ""
    assert [(rate, samples.shape) for rate, samples in parts] == [
        (48_000, expected.shape),
        (22_050, (40_000, 1)),
        (48_000, (2 * len(expected), 2)),
    ]
    np.testing.assert_allclose(parts[0][1], expected, **EXACT)
    np.testing.assert_allclose(parts[1][1], soundfile.read(mono, dtype="float32", always_2d=True)[0], **EXACT)
    np.testing.assert_allclose(parts[2][1], np.concatenate([expected, expected]), **EXACT)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("cut", ["the last page", "within the last page", "the mark of the end"])
def test_a_file_without_its_end_is_partial(tmp_path, whole, codec, cut):
    pages, expected = whole[codec]
    rest: list[Page | bytes] = {
        "the last page": [],
        "within the last page": [bytes(pages[-1])[:-50]],
        "the mark of the end": [replace(pages[-1], flags=0)],
    }[cut]
    found, reason = one_part(join(tmp_path / "a.ogg", *pages[:-1], *rest))
    assert reason == f"cut short: the last page of its Ogg stream is missing, {len(found)} frames can be decoded"
    if cut == "the mark of the end":  # then what fills the last packet cannot be told from sound
        assert len(expected) <= len(found) < len(expected) + 2_048
    else:
        assert len(found) == pages[-2].position - skipped(pages)
    np.testing.assert_allclose(found[: len(expected)], expected[: len(found)], **EXACT)


def test_a_partial_file_is_used_and_says_why(tmp_path, whole):
    pages, expected = whole["VORBIS"]
    decoding = decode_blocks(join(tmp_path / "a.ogg", *pages[:-1]), 48_000)
    found = np.concatenate([block.samples for block in decoding])
    assert decoding.partial.code == "cut-short"
    np.testing.assert_allclose(found, expected[: len(found)].mean(axis=1), rtol=0, atol=1e-6)


def test_a_stream_that_was_cut_does_not_hide_the_next_one(tmp_path, whole):
    pages, expected = whole["VORBIS"]
    other, following = whole["OPUS"]
    found, reason = one_part(join(tmp_path / "a.ogg", *pages[:-1], bytes(pages[-1])[:-50], *other))
    assert reason.startswith("cut short: the last page")
    first = len(found) - len(following)
    assert 0 < first == pages[-2].position
    np.testing.assert_allclose(found[:first], expected[:first], **EXACT)
    np.testing.assert_allclose(found[first:], following, **EXACT)


@pytest.mark.parametrize("codec", CODECS)
def test_junk_between_pages_and_behind_them_is_passed_over(tmp_path, whole, codec):
    pages, expected = whole[codec]
    middle = len(pages) // 2
    junk = bytes(range(256)) * 300 + b"OggS" * 10
    path = join(tmp_path / "a.ogg", *pages[:middle], junk, *pages[middle:], b"TAG" + bytes(125))
    found, reason = one_part(path)
    assert reason == ""
    np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("damage", ["a wrong byte", "a missing page"])
def test_a_damaged_file_is_used_up_to_the_damage(tmp_path, whole, codec, damage):
    pages, expected = whole[codec]
    middle = len(pages) // 2
    wrong = bytearray(bytes(pages[middle]))
    wrong[-7] ^= 0x10
    rest = [bytes(wrong)] if damage == "a wrong byte" else []
    found, reason = one_part(join(tmp_path / "a.ogg", *pages[:middle], *rest, *pages[middle + 1 :]))
    assert reason == f"a page of its Ogg stream is missing or damaged, {len(found)} frames before it can be decoded"
    assert len(found) == pages[middle - 1].position - skipped(pages)
    np.testing.assert_allclose(found, expected[: len(found)], **EXACT)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("is_cut", [False, True])
def test_behind_a_damaged_first_page_of_sound_nothing_is_the_start(tmp_path, whole, codec, is_cut):
    pages, _ = whole[codec]
    first = pages_with_sound(pages)
    wrong = bytearray(bytes(pages[first]))
    wrong[-7] ^= 0x10
    rest = wrong[:-300] if is_cut else wrong
    parts, reason = decode(join(tmp_path / "a.ogg", *pages[:first], bytes(rest), *pages[first + 1 :]))
    assert not parts
    assert reason == "a page of its Ogg stream is missing or damaged, 0 frames before it can be decoded"


@pytest.mark.parametrize("codec", CODECS)
def test_wrong_page_numbers_are_no_damage_where_the_positions_go_on(tmp_path, whole, codec):
    pages, expected = whole[codec]
    found, reason = one_part(join(tmp_path / "a.ogg", *pages[:3], *(replace(page, sequence=0) for page in pages[3:])))
    assert reason == ""
    np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.parametrize("codec", CODECS)
def test_pages_of_another_stream_are_left_out(tmp_path, whole, codec):
    pages, expected = whole[codec]
    video = Page(FIRST, 0, 77, 0, bytes([42]), b"\x80theora" + bytes(35))
    frames = [Page(0, index, 77, index + 1, bytes([255, 9]), bytes(264)) for index in range(len(pages))]
    mixed = [page for pair in zip(pages[1:], frames, strict=False) for page in pair]
    found, reason = one_part(join(tmp_path / "a.ogv", video, pages[0], *mixed))
    assert reason == ""
    np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.parametrize("codec", CODECS)
def test_comments_may_be_as_large_as_a_cover(tmp_path, whole, codec):
    pages, expected = whole[codec]
    first = pages_with_sound(pages)
    headers = [packet for page in pages[1:first] for packet in packets_of(page)]
    comment = (b"OpusTags" if codec == "OPUS" else b"\x03vorbis") + bytes(3_000_000)
    path = join(tmp_path / "a.ogg", pages[0], *paged(pages[0].serial, [comment, *headers[1:]]), *pages[first:])
    found, reason = one_part(path)
    assert reason == ""
    np.testing.assert_allclose(found, expected, **EXACT)


def packets_of(page: Page) -> list[bytes]:
    packets, start, size = [], 0, 0
    for segment in page.lacing:
        size += segment
        if segment < 255:
            packets.append(page.body[start : start + size])
            start, size = start + size, 0
    assert size == 0
    return packets


def paged(serial: int, packets: list[bytes]) -> list[Page]:
    """Lay packets into pages one after the other."""
    lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    body, pages = b"".join(packets), []
    for number, first in enumerate(range(0, len(lacing), 255), 1):
        sizes = lacing[first : first + 255]
        flags = CONTINUED if first and lacing[first - 1] == 255 else 0
        pages.append(Page(flags, 0, serial, number, sizes, body[: sum(sizes)]))
        body = body[sum(sizes) :]
    return pages


@pytest.mark.parametrize("codec", CODECS)
def test_a_file_is_read_once(tmp_path, whole, codec):
    pages, _ = whole[codec]
    path = join(tmp_path / "a.ogg", *pages * 4)
    source = ByteSource(path)
    assert sum(len(samples) for samples, _ in open_sound(source).blocks()) == 4 * SECONDS * 48_000
    assert source.bytes_read <= 1.05 * source.size


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"CELT    0.1" + bytes(69), "holds CELT, and no Vorbis, Opus or FLAC"),
        (b"\x80theora" + bytes(35), "holds Theora video, and no Vorbis, Opus or FLAC"),
        (b"unheard-of", "holds a stream of an unknown kind, and no Vorbis, Opus or FLAC"),
        (b"OpusHead" + bytes(3), "its Opus header is damaged"),
        (b"\x01vorbis" + bytes(23), "cut short: it ends within its header"),
    ],
)
def test_a_stream_that_cannot_be_read_says_why(tmp_path, head, reason):
    path = join(tmp_path / "a.ogg", Page(FIRST, 0, 1, 0, bytes([len(head)]), head), *paged(1, [b"OpusTags" + bytes(8)]))
    with pytest.raises(AudioFileError) as caught:
        load_audio(path)
    assert reason in caught.value.reason


def test_a_later_stream_that_cannot_be_read_makes_the_file_partial(tmp_path, whole):
    pages, expected = whole["OPUS"]
    speex = Page(FIRST, 0, 1, 0, bytes([80]), b"Speex   1.2" + bytes(69))
    found, reason = one_part(join(tmp_path / "a.ogg", *pages, speex))
    assert "Speex" in reason
    np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.parametrize("codec", CODECS)
def test_a_file_of_headers_only_holds_no_samples(tmp_path, whole, codec):
    pages, _ = whole[codec]
    first = pages_with_sound(pages)
    empty = replace(pages[-1], lacing=b"", body=b"", sequence=first)
    for rest in ([], [replace(empty, flags=LAST, position=0)]):
        with pytest.raises(AudioFileError):
            load_audio(join(tmp_path / "a.ogg", *pages[:first], *rest))
