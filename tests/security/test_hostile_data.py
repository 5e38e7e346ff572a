"""Data that means harm: pictures that claim to be huge, and archives whose names lead elsewhere."""

import io
import struct
import tarfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

from src.batch import BoxResize, DataError, Engine
from src.data.headers import FORMATS, header_of
from src.data.plan import whole_images
from tests.contracts.engines import ENGINES, folder_of
from tests.pictures import encode
from tests.unit.data.tars import contents, open_tars, tar_bytes

HUGE = 60_000  # a side: 10.8 GB as RGB
MOST_MEMORY = 600 * 2**20
PNG = b"\x89PNG\r\n\x1a\n"


def huge_jpeg(kind: str = "jpeg") -> bytes:
    """A small JPEG whose frame claims to be huge; as long as the small one."""
    data = encode(kind)
    at = data.index(b"\xff\xc2" if kind == "progressive" else b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", HUGE, HUGE) + data[at + 4 :]


def huge_png() -> bytes:
    """All zeros, which deflate a thousandfold."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    frame = chunk(b"IHDR", struct.pack(">IIBBBBB", HUGE, HUGE, 8, 2, 0, 0, 0))
    return PNG + frame + chunk(b"IDAT", zlib.compress(bytes(2**22), 9)) + chunk(b"IEND", b"")


def huge_bmp() -> bytes:
    data = bytearray(encode("BMP"))
    struct.pack_into("<ii", data, 18, HUGE, HUGE)
    return bytes(data)


def huge_ppm() -> bytes:
    return b"P6 %d %d 255\n" % (HUGE, HUGE) + bytes(1000)


def huge_gif() -> bytes:
    data = bytearray(encode("GIF"))
    struct.pack_into("<HH", data, 6, HUGE, HUGE)
    return bytes(data)


BOMBS = {
    "jpeg": huge_jpeg(),
    "progressive": huge_jpeg("progressive"),
    "png": huge_png(),
    "bmp": huge_bmp(),
    "ppm": huge_ppm(),
    "gif": huge_gif(),
}


class Memory:
    """How much more memory than now was ever in use; the kernel keeps the mark (proc(5), clear_refs)."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._before = self._kib("VmRSS")

    def peak(self) -> int:
        return (self._kib("VmHWM") - self._before) * 1024

    @staticmethod
    def _kib(name: str) -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1])


def test_the_measure_sees_what_is_used() -> None:
    memory = Memory()
    used = bytearray(64 * 2**20)
    used[::4096] = b"x" * len(used[::4096])
    assert memory.peak() > 50 * 2**20


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", list(BOMBS))
def test_a_picture_that_claims_to_be_huge_is_not_indexed(kind: str) -> None:
    memory = Memory()
    header = header_of(BOMBS[kind])
    assert header.fault and (header.width, header.height) == (0, 0)
    assert memory.peak() < MOST_MEMORY


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", list(ENGINES))
@pytest.mark.parametrize("kind", ["jpeg", "progressive", "png"])
def test_a_picture_exchanged_for_one_is_refused_by_every_engine(tmp_path: Path, name: str, kind: str) -> None:
    """The index was right when it was made."""
    files = {f"ant/{number}.jpg": encode(kind, seed=number) for number in range(4)}
    source = folder_of(tmp_path / "train", files, tmp_path / "cache")
    plan = whole_images(range(4), source.sizes)
    engine: Engine | None = None
    memory = Memory()
    (tmp_path / "train" / "ant" / "2.jpg").write_bytes(BOMBS[kind])
    try:
        with pytest.raises(DataError, match=r"2\.jpg"):  # FFCV: by the writer of its file
            engine = ENGINES[name](source)
            for _ in engine.batches(iter([plan]), geometry=BoxResize(16, "bilinear")):
                pass
        assert memory.peak() < MOST_MEMORY
    finally:
        if engine is not None:
            engine.close()


def test_only_formats_that_are_named_are_opened(tmp_path: Path) -> None:
    """Pillow knows some fifty, among them PostScript, which runs Ghostscript."""
    assert set(FORMATS) == {"JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF"}
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    assert header_of(eps).fault
    for kind in ("TGA", "PCX", "SGI", "ICO", "JPEG2000"):
        memory = io.BytesIO()
        Image.new("RGB", (16, 16)).save(memory, kind)
        assert header_of(memory.getvalue()).fault, kind


def link(name: str, kind: bytes, target: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        archive.addfile(info)
        image = tarfile.TarInfo("ant/a.png")
        image.size = len(encode("png"))
        archive.addfile(image, io.BytesIO(encode("png")))
    return memory.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        tar_bytes({"../evil/a.png": encode("png"), "ant/b.png": encode("png")}),
        tar_bytes({"ant/../../evil/a.png": encode("png")}),
        tar_bytes({"/etc/evil/a.png": encode("png")}),
        tar_bytes({"../evil.tar": tar_bytes({"a.png": encode("png")})}),
        tar_bytes({"n1.tar": tar_bytes({"../../a.png": encode("png")})}),
        link("ant/x.png", tarfile.SYMTYPE, "/etc/passwd"),
        link("ant/x.png", tarfile.LNKTYPE, "/etc/passwd"),
        link("ant", tarfile.SYMTYPE, "/etc"),
        link("ant/x.png", tarfile.CHRTYPE, ""),
    ],
    ids=["up", "up again", "absolute", "inner tar up", "up in an inner tar", "symlink", "hard link", "folder link", "device"],
)
def test_a_tar_is_read_in_place_and_writes_nothing_anywhere(tmp_path: Path, content: bytes) -> None:
    """Members are bytes of the tar. A name serves as a label and as a message's word, never as a path."""
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    (inside / "x.tar").write_bytes(content)
    try:
        source = open_tars(inside / "x.tar")
    except DataError as error:
        assert "x.tar" in str(error)
    else:
        images = {bytes(data) for _, _, data in contents(source)}
        assert images == {encode("png")}, "the member's own bytes, not a file's that it names"
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} - {"a", "a/b", "a/b/x.tar"}
    assert all(name.startswith("a/b/cache") or name == "a/b/.x.tar.index.npz" for name in written), written
    assert not any("evil" in name or name.endswith(".png") for name in written)
