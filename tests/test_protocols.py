"""Protocol files read by NumPy and through SciPy: both ways agree, and what is not plain is left to SciPy."""

import os
import struct
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from datasets import DatasetError, cuhk_files, matlab_blocks
from datasets.annotation_file import AnnotationFile
from datasets.cuhk_files import read_any_protocol, read_protocol
from datasets.findings import Report
from datasets.matlab_write import cell, text
from datasets.matlab_write import struct as struct_array
from datasets.protocol import SCENE_FIELDS
from datasets.protocol_fast import read_plain_protocol

QUERY_FIELDS = (*SCENE_FIELDS, "idname")
NAMES = [("s1234567.jpg" * 2)[:length] for length in range(1, 13)]
SEED = 5


def assert_same(protocol, other):
    assert protocol.names == other.names
    for query, twin in zip(protocol.queries, other.queries, strict=True):
        assert (query.img_name, query.pid, query.box.dtype) == (twin.img_name, twin.pid, twin.box.dtype)
        np.testing.assert_array_equal(query.box, twin.box)
    for column in ("images", "query", "positives", "boxes"):
        values, expected = getattr(protocol, column), getattr(other, column)
        assert values.dtype == expected.dtype
        np.testing.assert_array_equal(values, expected)


def opened(path):
    return AnnotationFile(path, os.path.realpath(path.parent), Report())


def record(fields, **values):
    values = {"ishard": np.zeros((1, 1)), "idname": text("p1"), **values}
    return tuple(values[field] for field in fields)


def write(path, entries, fields=SCENE_FIELDS, query_fields=QUERY_FIELDS, outer=("Query", "Gallery"), compress=True):
    """A protocol file; an entry is a query's name and box, and the (name, box) of its gallery."""
    rows = []
    for name, box, gallery in entries:
        query = struct_array([record(query_fields, imname=name, idlocate=box)], query_fields, (1, 1))
        scenes = [record(fields, imname=image, idlocate=found) for image, found in gallery]
        parts = {"Query": query, "Gallery": struct_array(scenes, fields, (1, -1))}
        rows.append([parts[part] for part in outer])
    savemat(path, {path.stem: struct_array(rows, outer, (1, -1))}, do_compression=compress)


def drawn_entries(dtype, sizes):
    """Entries with galleries of these sizes, a box in about every third image, names of 1 to 12 letters."""
    rng, empty = np.random.default_rng(SEED), [np.zeros((1, 0)), np.zeros((0, 0), np.uint8)]
    entries = []
    for size in sizes:
        boxes = (rng.uniform(1, 120, (size + 1, 1, 4))).astype(dtype)
        gallery = [
            (text(NAMES[rng.integers(len(NAMES))]), box if rng.random() < 0.3 else empty[rng.integers(2)])
            for box in boxes[1:]
        ]
        entries.append((text(NAMES[size % len(NAMES)]), boxes[0].T if size % 2 else boxes[0], gallery))
    return entries


@pytest.fixture
def path(tmp_path):
    return tmp_path / "TestG5.mat"


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize(
    ("compress", "fields", "outer"),
    [(True, SCENE_FIELDS, ("Query", "Gallery")), (False, SCENE_FIELDS[::-1], ("Gallery", "Query"))],
)
def test_both_ways_agree(dtype, compress, fields, outer, path):
    entries = drawn_entries(dtype, [7, 0, 40, 1, 12])
    write(path, entries, fields, ("idname", *fields), outer, compress)
    protocol = read_plain_protocol(path)
    assert_same(protocol, read_any_protocol(opened(path)))
    assert np.bincount(protocol.query, minlength=5).tolist() == [7, 0, 40, 1, 12]
    assert len(protocol.positives) == sum(box.size > 0 for _, _, gallery in entries for _, box in gallery) > 0


def test_blocks_are_joined(path, monkeypatch):
    write(path, drawn_entries("u2", [9, 3, 0, 30, 5, 8, 8]))
    whole = read_plain_protocol(path)
    for size in (6000, 7001, 20_000):
        monkeypatch.setattr(matlab_blocks, "BLOCK_BYTES", size)
        assert_same(read_plain_protocol(path), whole)
    monkeypatch.setattr(matlab_blocks, "BLOCK_BYTES", 3000)  # the gallery of 30 does not fit in
    assert read_plain_protocol(path) is None


def element(kind, data):
    tag = struct.pack("<2H", kind, len(data)) if 0 < len(data) <= 4 else struct.pack("<2I", kind, len(data))
    content = tag + data
    return content + bytes(-len(content) % 8)


def matrix(number, dims, content, name=b""):
    flags, shape = struct.pack("<2I", number, 0), struct.pack("<2i", *dims)
    return element(14, element(6, flags) + element(5, shape) + element(1, name) + content)


def structs(fields, values, name=b""):
    """A struct array's matrix, 32 bytes for each field's name as Matlab has it."""
    names = b"".join(field.encode().ljust(32, b"\0") for field in fields)
    content = element(5, struct.pack("<i", 32)) + element(1, names) + b"".join(values)
    return matrix(2, (1, len(values) // len(fields)), content, name)


def matlab_file(variable, compress=True):
    if compress:
        variable = zlib.compress(variable)
        variable = struct.pack("<2I", 15, len(variable)) + variable
    return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + variable


def matlab_variable(name=b"TestG5"):
    """Two queries as Matlab writes them: 16-bit names, numbers in the smallest type, empties of two kinds."""

    def chars(value):
        return matrix(4, (1, len(value)), element(4, value.encode("utf-16-le")))

    def box(kind, letter, *numbers):
        return matrix(6, (1, 4), element(kind, struct.pack(f"<4{letter}", *numbers)))

    hard, nothing, empty = matrix(6, (1, 1), element(2, b"\1")), element(14, b""), matrix(6, (0, 0), element(9, b""))
    first = structs(QUERY_FIELDS, [chars("s1.jpg"), box(5, "i", 70000, 2, 3, 4), hard, chars("p1")])
    second = structs(QUERY_FIELDS, [chars("q"), box(2, "B", 250, 2, 30, 4), hard, chars("p2")])
    seen = structs(SCENE_FIELDS, [chars("s22.jpg"), nothing, nothing, chars("ab"), box(3, "h", 9, -8, 7, 6), hard])
    unseen = structs(SCENE_FIELDS, [chars("ab"), empty, empty])
    return structs(("Query", "Gallery"), [first, seen, second, unseen], name)


@pytest.mark.parametrize("compress", [True, False])
def test_files_as_matlab_writes_them(compress, path):
    path.write_bytes(matlab_file(matlab_variable(), compress))
    protocol = read_plain_protocol(path)
    assert_same(protocol, read_any_protocol(opened(path)))
    assert [query.img_name for query in protocol.queries] == ["s1.jpg", "q"]
    assert [query.box.tolist() for query in protocol.queries] == [[70000, 2, 70003, 6], [250, 2, 280, 6]]
    assert (protocol.names, protocol.images.tolist()) == (["s22.jpg", "ab"], [0, 1, 1])
    assert protocol.query.tolist() == [0, 0, 1]
    assert (protocol.positives.tolist(), protocol.boxes.tolist()) == ([1], [[9, -8, 16, -2]])


BOX, EMPTY = np.array([[1, 2, 3, 4]]), np.zeros((1, 0))
PLAIN_BOX = BOX.astype(np.int32)


@pytest.mark.parametrize(
    "name",
    [cell([text("s1.jpg")], (1, 1)), text("größe.jpg"), text("s" * 300)],
    ids=["nested", "not ASCII", "long"],
)
def test_other_names_are_left_to_scipy(name, path):
    write(path, [(text("a"), BOX, [(name, BOX), (text("b"), EMPTY)])])
    assert read_plain_protocol(path) is None
    assert read_protocol(opened(path)).names[1] == "b"


@pytest.mark.parametrize(
    ("name", "box", "message"),
    [
        (text("b"), np.array([[1, 2, 3]]), "x, y, w, h"),
        (text("b"), np.array([[1, 2, np.nan, 4]]), "finite"),
        (text("b"), np.array([[1, 2, np.inf, 4]]), "finite"),
        (text("b"), text("abcd"), "expected finite numbers"),
        (np.zeros((1, 3)), BOX, "expected a name"),
        (text(""), BOX, "expected a name"),
    ],
)
def test_faults_are_left_to_scipy(name, box, message, path):
    write(path, [(text("a"), BOX, [(name, box)])])
    assert read_plain_protocol(path) is None
    with pytest.raises(DatasetError, match=message):
        read_protocol(opened(path))


def test_other_files_are_left_to_scipy(path):
    assert read_plain_protocol(path) is None  # there is none
    variable = matlab_variable()
    plain = matlab_file(variable)
    assert read_plain_protocol(_written(path, plain)) is not None
    others = [
        plain[:124] + b"\x01\x00MI" + plain[128:],  # big-endian
        plain[:124] + b"\x00\x02IM" + plain[128:],  # version 7.3
        bytes(4) + plain[4:],  # version 4
        plain[:128],
        matlab_file(matlab_variable(b"TestG6")),
        matlab_file(variable + bytes(8)),  # more than the tag says
        matlab_file(struct.pack("<2I", 14, len(variable) + 8) + variable[8:]),  # less
    ]
    assert [read_plain_protocol(_written(path, other)) for other in others] == [None] * len(others)


def _written(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("compress", [True, False])
def test_cut_and_garbled_files_give_nothing_worse_than_none(compress, path):
    plain, rng = matlab_file(matlab_variable(), compress), np.random.default_rng(SEED)
    lengths = range(0, len(plain), 1 if compress else 4)  # every other one ends in mid-tag
    assert {read_plain_protocol(_written(path, plain[:length])) for length in lengths} == {None}
    for _ in range(700):
        garbled = bytearray(plain)
        for place in rng.integers(128, len(plain), rng.integers(1, 4)):
            garbled[place] = rng.choice([0, 1, 8, 14, 255, int(rng.integers(256))])
        protocol = read_plain_protocol(_written(path, bytes(garbled)))
        if protocol is not None:
            assert set(protocol.images.tolist()) == set(range(len(protocol.names)))
            assert len(protocol.queries) == 2


@pytest.mark.parametrize("name", [text("s1.jpg"), cell([text("s1.jpg")], (1, 1))], ids=["plain", "nested"])
def test_protocols_without_fault_are_read_once(name, path, monkeypatch):
    reads = []
    for reader in ("read_plain_protocol", "read_any_protocol"):
        function = getattr(cuhk_files, reader)
        monkeypatch.setattr(cuhk_files, reader, lambda at, f=function, r=reader: (reads.append(r), f(at))[1])
    write(path, [(text("a"), PLAIN_BOX, [(name, PLAIN_BOX)])])
    first = read_protocol(opened(path))
    assert read_protocol(opened(path)) is first
    assert reads == ["read_plain_protocol", "read_any_protocol"][: 1 + (name.dtype == object)]
    os.utime(path, ns=(0, 0))  # it has changed
    assert read_protocol(opened(path)) is not first


@pytest.mark.parametrize("bad", ["../../s1.jpg", "/etc/passwd", "C:s1.jpg", "a\\..\\b"])
def test_names_that_lead_out_are_refused_wherever_they_stand(bad, path):
    for entry, record in [
        ((text(bad), PLAIN_BOX, []), "query 1"),
        ((text("a"), PLAIN_BOX, [(text("b"), EMPTY), (text(bad), EMPTY)]), "query 1, gallery image 2"),
    ]:
        write(path, [entry])
        assert read_plain_protocol(path) is not None
        os.utime(path, ns=(len(record), 0))
        with pytest.raises(DatasetError, match=f"{record}: image name .* leads out of the image folder"):
            read_protocol(opened(path))


def test_published_protocol(shared_dir):
    path = shared_dir / "real" / "cuhk_sysu" / "TestG100.mat"
    protocol = read_plain_protocol(path)
    assert_same(protocol, read_any_protocol(opened(path)))
    assert (len(protocol.queries), len(protocol.images), len(protocol.names)) == (2900, 290_000, 6978)
