"""Image files of directory recordings: what they hold comes back, and damage never goes unseen."""

from __future__ import annotations

import base64
import io
import itertools
import json
import shutil
import struct
import subprocess
import tracemalloc
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imgstore_compat.directory.image_files import DTYPES, check_image, decode_image, read_npy
from imgstore_compat.directory.image_files import encode_image as encode_buffers
from numpy.typing import NDArray

from imgstore_zarr import UnsupportedFormatError
from imgstore_zarr.storage import FileBlob

Image = NDArray[Any]

ALL_DTYPES = [f"{kind}{8 * size}" for kind in ("int", "uint") for size in (1, 2, 4, 8)]
ALL_DTYPES += ["float16", "float32", "float64"]
SHAPES = {"gray": (12, 17), "color": (12, 17, 3)}
OPENCV_KINDS = [kind for kind, dtypes in DTYPES.items() if dtypes is not None]
LOSSLESS = [
    (kind, dtype, shape)
    for kind, dtypes in DTYPES.items()
    for dtype in dtypes or ALL_DTYPES
    for shape in SHAPES.values()
    if kind != "jpg" and (kind, len(shape)) != ("pgm", 3)
]


def picture(shape: tuple[int, ...], dtype: Any = np.uint8, seed: int = 0) -> Image:
    """An image of random bits, so that floats are of every kind, NaN included."""
    wanted: np.dtype[Any] = np.dtype(dtype)
    random = np.random.default_rng(seed)
    data = random.integers(0, 256, int(np.prod(shape)) * wanted.itemsize, np.uint8)
    return data.view(wanted).reshape(shape)


def smooth(shape: tuple[int, ...]) -> Image:
    """An image that JPEG hardly changes."""
    ramp = np.add.outer(np.arange(shape[0]) * 3, np.arange(shape[1]) * 2)
    return np.asarray(np.stack([ramp] * 3, axis=2) if len(shape) == 3 else ramp, np.uint8)


def decode(kind: str, data: bytes, like: Image) -> Image:
    return decode_image(kind, data, like.shape, like.dtype)


def encode_image(kind: str, image: Image) -> bytes:
    return b"".join(bytes(part) for part in encode_buffers(kind, image))


def same(actual: Image, expected: Image) -> None:
    np.testing.assert_array_equal(actual, expected, strict=True)
    assert actual.tobytes() == expected.tobytes()


# What is encoded comes back, and others read it.


@pytest.mark.parametrize(("kind", "dtype", "shape"), LOSSLESS, ids=str)
def test_every_dtype_comes_back_bit_for_bit(kind: str, dtype: str, shape: tuple[int, ...]) -> None:
    image = picture(shape, dtype)
    same(decode(kind, encode_image(kind, image), image), image)
    # What is not contiguous, too.
    turned = image[::-1, ::-1]
    same(decode(kind, encode_image(kind, turned), turned), turned)
    swapped = image.astype(image.dtype.newbyteorder())
    same(decode(kind, encode_image(kind, swapped), image), image)


@pytest.mark.parametrize("shape", [(5, 7, 1), (5, 7, 4), (1, 1), (1100, 1000)], ids=str)
@pytest.mark.parametrize("kind", ["npy", "bpk"])
def test_any_shape_comes_back(kind: str, shape: tuple[int, ...]) -> None:
    image = picture(shape, np.uint32)
    same(decode(kind, encode_image(kind, image), image), image)


@pytest.mark.parametrize("kind", OPENCV_KINDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_files_are_those_of_opencv(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    for dtype in DTYPES[kind] or ():
        image = picture(shape, dtype)
        given = image
        if kind == "ppm" and image.ndim == 2:
            given = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        if kind == "pgm" and image.ndim == 3:
            given = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        path = tmp_path / f"{dtype}.{kind}"
        # OpenCV's versions differ in what they do with these by default.
        lzw = [cv2.IMWRITE_TIFF_COMPRESSION, 5]
        cv2.imwrite(str(path), given, lzw if dtype == "float32" else [])
        assert encode_image(kind, image) == path.read_bytes()


@pytest.mark.parametrize("kind", OPENCV_KINDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_pixels_are_those_that_opencv_reads(
    tmp_path: Path, kind: str, shape: tuple[int, ...]
) -> None:
    image = picture(shape)
    path = tmp_path / f"image.{kind}"
    path.write_bytes(encode_image(kind, image))
    flags = cv2.IMREAD_COLOR if len(shape) == 3 else cv2.IMREAD_GRAYSCALE
    expected = cv2.imread(str(path), flags)
    assert expected is not None
    same(decode(kind, path.read_bytes(), image), expected)


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_npy_is_that_of_numpy(dtype: str) -> None:
    image = picture((4, 5, 3), dtype)
    file = io.BytesIO()
    np.save(file, image)
    assert encode_image("npy", image) == file.getvalue()


@pytest.mark.parametrize(
    ("kind", "shape", "dtype"),
    [
        ("png", (4, 5), "float32"),
        ("png", (4, 5), "int16"),
        ("png", (4, 5, 4), "uint8"),
        ("png", (4, 5, 1), "uint8"),
        ("tif", (4, 5), "int64"),
        ("tif", (4, 5), "float16"),
        ("bmp", (4, 5), "uint16"),
        ("jpg", (4, 5), "uint16"),
        ("ppm", (4, 5), "int8"),
        ("pgm", (4, 5, 2), "uint8"),
    ],
)
def test_what_a_kind_cannot_hold(kind: str, shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=rf"{kind}/dir holds .*npy/dir"):
        check_image(kind, shape, np.dtype(dtype))


# Files of other tools.


def other_npy() -> dict[str, tuple[bytes, Image]]:
    image = picture((6, 8), np.uint16)
    made: dict[str, tuple[bytes, Image]] = {}
    for name, variant in {
        "Fortran order": np.asfortranarray(image),
        "big endian": image.astype(">u2"),
    }.items():
        file = io.BytesIO()
        np.save(file, variant)
        made[name] = file.getvalue(), image
    for version in ((1, 0), (2, 0), (3, 0)):
        file = io.BytesIO()
        np.lib.format.write_array(file, image, version=version)
        made[f"version {version}"] = file.getvalue(), image
    header = b"{'descr': '<u2', 'fortran_order': False, 'shape': (6L, 8L), }".ljust(117) + b"\n"
    made["Python 2"] = b"\x93NUMPY\x01\x00v\x00" + header + image.tobytes(), image
    return made


@pytest.mark.parametrize(("data", "image"), other_npy().values(), ids=other_npy())
def test_npy_variants(tmp_path: Path, data: bytes, image: Image) -> None:
    same(decode("npy", data, image), image)
    path = tmp_path / "image.npy"
    path.write_bytes(data)
    straight = np.empty_like(image)
    if read_npy(FileBlob(path), straight):
        same(straight, image)
    path.write_bytes(encode_image("npy", image))
    assert read_npy(FileBlob(path), straight)
    same(straight, image)
    for other in (image.astype(np.int16), image[1:], image.T, image[None]):
        assert not read_npy(FileBlob(path), np.empty(other.shape, other.dtype))
    for content in (path.read_bytes()[:-1], path.read_bytes() + b"x", b""):
        path.write_bytes(content)
        assert not read_npy(FileBlob(path), straight)


# Made by bloscpack 0.16.0 with blosc 1.11.1 under Python 3.8 and NumPy 1.24: pack_ndarray_to_file of
# the arrays below, the first two by default, the others with other chunks, checksums and codecs.
# Here as base85 of zlib.
BLOSCPACK: dict[str, tuple[Image, str]] = {
    "uint16": (
        np.arange(48, dtype=np.uint16).reshape(6, 8) * np.uint16(7),
        "c-"
        "l+KDadAKW@JiWU|;}YMg|Drg3?~W{(fKvBO{wVkSb$hV6bOEfQmV*!@M+C>Ue~13JTh;X&MxMDNyU22g}FBX"
        "G?UFN~e744hrgS*mTZe=952rCLK9rV_?7DWcz}km0}FR_l3h4M!_f`9c+_TSSrK}VgIKxU}6-"
        "8=Y|5X4eShj45AD&49W~z42BFA!1V9N;L8xg5Y3RpkO@>%&QQnD%Fx3wnPC>gLWUI#>lwB&>}5E@aGK!~!%c"
        "<<49^+fF??nC!@$hQ#VE)q!6?tD#;D6^!f4It#OTSWBWn2x04!OGUj",
    ),
    "float32": (
        np.repeat(np.array([0, np.pi, 0], np.float32), 12).reshape(3, 4, 3),
        "c-l+KDadAKW@MSbz`y{)j0_OK1*N@${r$iUMn*PAAl1dhz~IP$02Omqhk0qP)bR-"
        "26cn`G(>O5vQlQp350;OMdrN&vdXh`0eCiGg>TdXS&SB@1KYJz}Ib&mBzusi~f}oXR47t~Y7cz{3Q9un)D9`"
        "&wjTyrJPi4TwC<xCX{y;1O#O6S(46^J1GsEo%ObiEvAFwkr@B>*7*rg9JGI+wp9DpotWT*b%dHx*$sdt6j",
    ),
    "small chunks": (
        np.arange(20, dtype=np.int32).reshape(4, 5),
        "c-l+KDadAKW@J%dU|<jcVrB*ikb}}*!Tx?=1|uVzJ&-D6VqmamK!A!ltHZoBSL%3#ZVC$8e%d53{8FISIS-b"
        "Pi+xLcl1rz2>JAF(ZrGIPF!RZuJ(G@{u`#e;Z?b(s&`L3ez?;H845MHakPcd97p^%3O{(9Zv=$45{y)M16Qe"
        "LV_kyqiB8XUlm<x#cL3tO5*?^cEl*vyse3ihW2bixJ*nyY_hy|eq0S6HC0<q9-"
        "hNqGsJp#~DLII)&6ylsf%m>86oeZZr0sb``_5",
    ),
    "no checksums": (
        np.full((5, 6), 9, np.uint8),
        "c-"
        "l+KDadAKVqlbGU|;}YMg~;i73}W^WwO}=i83Yz274s=YNeEt%7RoSD<$=sQbTnm9i`%oL=ZpPRL3k<M=8H3C"
        "AA1B>kO1h&d)1J%*+Gx^Gb6IDwS#(M!_f`9WXHp!&9st5Od-M0Qp84Lj",
    ),
    "sha1": (
        np.full((5, 6), 9, np.uint8),
        "c-"
        "l+KDadAKW?|%FU|;}YW(Ek5gVJ8X{(fKvBO{wVkSb$hV6bOEfQmV*!@M+C>Ue~13JO}UX&MrKDNyU22g}FBz"
        "NKf9N~e744hrgS*mTZe=952rCLK9rV_?7DWcz}km0}DDPQsHIM!_f`9n{KlFFOQHsvn@V91Dd0Kf(YLqcJ@9"
        "N&zt^9Jm)RJ8J9qbV5sZrN)t_N0laNO{%n14FHv0GUN",
    ),
}


@pytest.mark.parametrize("name", BLOSCPACK)
def test_files_of_bloscpack(name: str) -> None:
    image, text = BLOSCPACK[name]
    same(decode("bpk", zlib.decompress(base64.b85decode(text)), image), image)


@pytest.mark.parametrize("name", ["uint16", "float32"])
def test_bloscpack_files_are_those_of_bloscpack(name: str) -> None:
    image, text = BLOSCPACK[name]
    written, theirs = encode_image("bpk", image), zlib.decompress(base64.b85decode(text))
    # All but the compressed pixels, which depend on the version of Blosc.
    start = 32 + 32 + int.from_bytes(theirs[52:56], "little") + 4
    assert written[:start] == theirs[:start]
    assert written[start : start + 88] == theirs[start : start + 88]


def jpegs() -> dict[str, list[int]]:
    return {
        "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
        "restart markers": [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
        "optimised": [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
        "low quality": [cv2.IMWRITE_JPEG_QUALITY, 5],
    }


@pytest.mark.parametrize("options", jpegs().values(), ids=jpegs())
def test_jpeg_variants(options: list[int]) -> None:
    image = picture((48, 40, 3))
    data = cv2.imencode(".jpg", image, options)[1]
    expected = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    same(decode("jpg", data.tobytes(), image), expected)
    for size in range(len(data)):
        with pytest.raises(ValueError):
            decode("jpg", data[:size].tobytes(), image)


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
def test_tiff_compressions(compression: int) -> None:
    image = picture((40, 30), np.uint16)
    options = [cv2.IMWRITE_TIFF_COMPRESSION, compression, cv2.IMWRITE_TIFF_ROWSPERSTRIP, 7]
    data = cv2.imencode(".tif", image, options)[1].tobytes()
    same(decode("tif", data, image), image)


def tiff(image: Image, order: Literal["<", ">"], *, big: bool = False, tile: int = 0) -> bytes:
    """An uncompressed gray TIFF file (TIFF 6.0; BigTIFF has words of 8 bytes)."""
    word, kind = ("Q", 16) if big else ("I", 4)
    pixels = image.astype(image.dtype.newbyteorder(order))
    height, width = image.shape
    if tile:
        padded = np.pad(pixels, ((0, -height % tile), (0, -width % tile)))
        blocks = [
            padded[y : y + tile, x : x + tile].tobytes()
            for y in range(0, height, tile)
            for x in range(0, width, tile)
        ]
    else:
        blocks = [pixels[: height // 2].tobytes(), pixels[height // 2 :].tobytes()]
    numbers = (43, 8, 0) if big else (42,)
    body = b"II" if order == "<" else b"MM"
    body += struct.pack(f"{order}{len(numbers)}H", *numbers)
    at = len(body) + struct.calcsize(order + word)
    starts = [at + sum(map(len, blocks[:i])) for i in range(len(blocks))]
    at += sum(map(len, blocks))
    lists = at
    lengths = [len(block) for block in blocks]
    packed = struct.pack(f"{order}{2 * len(blocks)}{word}", *starts, *lengths)
    directory = lists + len(packed)
    size = struct.calcsize(order + word)
    entries: list[tuple[int, int, int, int]] = [
        (256, kind, 1, width),
        (257, kind, 1, height),
        (258, kind, 1, 8 * image.itemsize),
        (259, kind, 1, 1),
        (262, kind, 1, 1),
        (277, kind, 1, 1),
    ]
    where = lists, lists + size * len(blocks)
    if tile:
        entries += [(322, kind, 1, tile), (323, kind, 1, tile)]
        entries += [(324, kind, len(blocks), where[0]), (325, kind, len(blocks), where[1])]
    else:
        entries += [(273, kind, len(blocks), where[0]), (278, kind, 1, height // 2)]
        entries += [(279, kind, len(blocks), where[1])]
    fields = b"".join(struct.pack(f"{order}HH{word}{word}", *entry) for entry in sorted(entries))
    count = struct.pack(order + ("Q" if big else "H"), len(entries))
    end = struct.pack(order + word, 0)
    return b"".join(
        [body, struct.pack(order + word, directory), *blocks, packed, count, fields, end]
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("tile", [0, 16])
def test_tiff_variants(order: Literal["<", ">"], big: bool, tile: int) -> None:
    image = picture((40, 30), np.uint16)
    data = tiff(image, order, big=big, tile=tile)
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
    same(np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), flags)), image)
    same(decode("tif", data, image), image)
    for size in range(len(data)):
        with pytest.raises(ValueError):
            decode("tif", data[:size], image)


def test_bmp_from_the_top_down() -> None:
    image = picture((12, 17))
    data = bytearray(encode_image("bmp", image))
    data[22:26] = struct.pack("<i", -12)
    same(decode("bmp", bytes(data), image), image[::-1])


def test_pnm_with_comments() -> None:
    image = picture((3, 4))
    data = b"P5\n# made by hand\n4 # x\n3\n#\n255\n" + image.tobytes()
    same(decode("pgm", data, image), image)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("color", [False, True])
def test_the_orientation_in_a_file_counts(tmp_path: Path, orientation: int, color: bool) -> None:
    data = encode_image("jpg", smooth((24, 40, 3)))
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation, 0, 0])
    exif += b"\0\0\0\0"
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    path = tmp_path / "image.jpg"
    path.write_bytes(data)
    expected = cv2.imread(str(path), cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE)
    assert expected is not None
    assert expected.shape[:2] == ((24, 40) if orientation < 5 else (40, 24))
    same(decode("jpg", data, expected), expected)
    with pytest.raises(ValueError, match="holds"):
        decode("jpg", data, expected.swapaxes(0, 1))


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "bmp", "ppm", "pgm"])
@pytest.mark.parametrize("pixels", ["gray", "bgr24", "rgb24", "pal8", "gray16be", "rgb48be"])
def test_files_of_ffmpeg(tmp_path: Path, suffix: str, pixels: str) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    path = tmp_path / f"image.{suffix}"
    source = ["-f", "lavfi", "-i", "testsrc=size=46x35", "-frames:v", "1", "-pix_fmt", pixels]
    command = ["ffmpeg", "-v", "quiet", *source, "-update", "1", str(path)]
    if subprocess.run(command, check=False).returncode or not path.exists():
        pytest.skip("ffmpeg does not write it so")
    data = path.read_bytes()
    for flags, shape in ((cv2.IMREAD_GRAYSCALE, (35, 46)), (cv2.IMREAD_COLOR, (35, 46, 3))):
        expected = cv2.imread(str(path), flags | cv2.IMREAD_ANYDEPTH)
        assert expected is not None
        same(decode_image(suffix, data, shape, expected.dtype), expected)
        other = np.dtype(np.uint8 if expected.dtype == np.uint16 else np.uint16)
        with pytest.raises(ValueError, match=f"holds {expected.dtype}, .* says {other}"):
            decode_image(suffix, data, shape, other)
        for size in range(0, len(data), 97):
            with pytest.raises(ValueError):
                decode_image(suffix, data[:size], shape, expected.dtype)


@pytest.mark.parametrize(
    ("kind", "dtype"), [(kind, dtype) for kind in OPENCV_KINDS for dtype in DTYPES[kind] or ()]
)
def test_no_dtype_becomes_another(kind: str, dtype: str, capfd: pytest.CaptureFixture[str]) -> None:
    """OpenCV would scale 16 bits down to 8, and says on stderr that it cannot do it with floats."""
    image = picture((12, 17), dtype)
    data = encode_image(kind, image)
    for other in {name for names in DTYPES.values() for name in names or ()} - {dtype}:
        with pytest.raises(ValueError, match=f"it holds {dtype}, metadata.yaml says {other}"):
            decode_image(kind, data, image.shape, np.dtype(other))
    assert capfd.readouterr().err == ""


# Damage.


def example(kind: str) -> tuple[bytes, Image]:
    image = smooth((12, 17, 3)) if kind == "jpg" else picture((12, 17), np.uint8)
    data = encode_image(kind, image)
    return data, decode(kind, data, image)


@pytest.mark.parametrize("kind", DTYPES)
def test_every_truncation_is_seen(kind: str) -> None:
    data, image = example(kind)
    for size in range(len(data)):
        with pytest.raises(ValueError):
            decode(kind, data[:size], image)


@pytest.mark.parametrize("kind", DTYPES)
def test_a_file_whose_end_was_never_written_is_seen(kind: str) -> None:
    data, image = example(kind)
    for size in range(0, len(data) - 64, 16):
        blank = data[:size] + bytes(len(data) - size)
        try:
            found = decode(kind, blank, image)
        except ValueError:
            continue
        # A file without checksums does not know: but these do.
        assert kind in ("npy", "ppm", "pgm", "bmp")
        assert (found.shape, found.dtype) == (image.shape, image.dtype)


@pytest.mark.parametrize("kind", DTYPES)
@given(data=st.data())
def test_no_flipped_bit_gives_another_shape(kind: str, data: st.DataObject) -> None:
    content, image = example(kind)
    at = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = decode(kind, bytes(flipped), image)
    except ValueError:
        return
    assert kind != "png", "every byte is under a checksum"
    assert (found.shape, found.dtype) == (image.shape, image.dtype)
    if kind == "bpk":
        np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("name", ["small chunks", "sha1"])
def test_no_flipped_byte_of_bloscpack_gives_another_image(name: str) -> None:
    image, text = BLOSCPACK[name]
    data = bytearray(zlib.decompress(base64.b85decode(text)))
    for at, bits in itertools.product(range(len(data)), (1, 0x80, 0xFF)):
        data[at] ^= bits
        try:
            found = decode("bpk", bytes(data), image)
        except ValueError:
            found = image
        np.testing.assert_array_equal(found, image)
        data[at] ^= bits


@pytest.mark.parametrize("kind", DTYPES)
@given(data=st.binary(max_size=200))
def test_noise_is_refused(kind: str, data: bytes) -> None:
    image = np.zeros((12, 17), np.uint8)
    for content in (data, example(kind)[0][: len(data)] + data):
        with pytest.raises(ValueError):
            decode(kind, content, image)


@pytest.mark.parametrize("kind", DTYPES)
def test_another_shape_or_dtype_is_refused(kind: str) -> None:
    data, image = example(kind)
    with pytest.raises(ValueError, match=r"holds .*\(12, 17"):
        decode(kind, data, picture((12, 18)))
    if kind in ("npy", "bpk"):
        with pytest.raises(ValueError, match="holds uint8"):
            decode(kind, data, image.astype(np.uint16))


@pytest.mark.parametrize("kind", ["npy", "bpk"])
def test_pickles_are_never_read(kind: str) -> None:
    file = io.BytesIO()
    np.save(file, np.array([[print]], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"no numbers|no Bloscpack"):
        decode_image(kind, file.getvalue(), (1, 1), np.dtype(object))


def bloscpack_claiming(shape: Sequence[int]) -> bytes:
    """A Bloscpack file that says it holds an image of this shape."""
    claim = {"dtype": "'|u1'", "shape": [*shape], "order": "C", "container": "numpy"}
    text = json.dumps(claim).encode()
    sizes = len(text), len(text), len(text)
    metadata = struct.pack("<8sBBBBIII8s", b"JSON", 0, 1, 0, 0, *sizes, b"") + text
    metadata += zlib.adler32(text).to_bytes(4, "little")
    return struct.pack("<4sBBBBiiqq", b"blpk", 3, 2, 1, 1, 9, 9, 1, 0) + metadata + bytes(64)


def png_claiming(height: int, width: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = encode_image("png", picture((3, 4)))
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("bpk", bloscpack_claiming([30_000, 30_000])),
        ("png", png_claiming(30_000, 30_000)),
        ("pgm", b"P5 30000 30000 255\n" + bytes(99)),
        ("npy", encode_image("npy", picture((3, 4))).replace(b"(3, 4), }", b"(9**9,), }")),
        (
            "npy",
            encode_image("npy", picture((3, 4))).replace(b"(3, 4), }   ", b"(30000, 30000), }"),
        ),
    ],
)
def test_nothing_is_allocated_on_the_word_of_a_header(kind: str, data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            decode_image(kind, data, (3, 4), np.dtype(np.uint8))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
