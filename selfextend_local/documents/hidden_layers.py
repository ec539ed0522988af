"""Layers of a PDF that are switched off: their text is taken out before the file is read.

Knows optional content (ISO 32000-1, 8.11) as pypdf shows it; PDFium's text ignores it. Must not know layout.
"""

from __future__ import annotations

import re
import zlib
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

_DEEPEST = 12  # drawings within drawings
_LAYERS = b"/OCProperties"
_PACKED = re.compile(rb"/ObjStm\b")
_STREAM = re.compile(rb"\bstream\r?\n")
_LONGEST_DICTIONARY = 500
_LOOKED_THROUGH = 1 << 22  # bytes at once
_PIECE = 1 << 14  # bytes that are unpacked at once; at most a thousand times as many come of them


def without_hidden_layers(path: Path, data: bytes | None = None) -> bytes | None:
    """The file less what is in layers that are switched off when it is opened; None if it has none, or pypdf can't read it."""
    try:
        if not _may_have_layers(path, data):
            return None
        pypdf = import_module("pypdf")
        reader = pypdf.PdfReader(path if data is None else BytesIO(data))
        root = reader.trailer["/Root"].get_object()
        properties = root.get("/OCProperties")
        if properties is None or not (hidden := _hidden(properties.get_object())):
            return None
        writer = pypdf.PdfWriter(clone_from=reader)
        hidden = _hidden(writer.root_object["/OCProperties"].get_object())
        cutter = _Cutter(writer, hidden)
        for page in writer.pages:
            cutter.cut_page(page)
        result = BytesIO()
        writer.write(result)
        return result.getvalue()
    except Exception:  # pypdf raises far more than its own PyPdfError; PDFium then reads all layers
        return None


def _may_have_layers(path: Path, data: bytes | None) -> bool:
    """Whether the file speaks of layers, or can't be looked through: pypdf takes a sixth of a second and 13 MiB to load."""
    with path.open("rb") if data is None else BytesIO(data) as file:
        return _speaks_of_layers(file)


def _speaks_of_layers(file: BinaryIO) -> bool:
    """It is read, not mapped: where a mapped file gets shorter meanwhile, the process ends."""
    end, last = 0, b""
    while piece := file.read(_LOOKED_THROUGH):
        content, begin = last + piece, end - len(last)
        if _LAYERS in content or b"/Encrypt" in content:
            return True
        if any(_packed_speaks(file, begin + packed.end()) for packed in _PACKED.finditer(content)):
            return True
        end, last = end + len(piece), content[-len(_LAYERS) :]
        file.seek(end)
    return False


def _packed_speaks(file: BinaryIO, at: int) -> bool:
    """The same of the objects packed into the stream whose dictionary has its type before `at`."""
    file.seek(at)
    begun = _STREAM.search(file.read(_LONGEST_DICTIONARY))
    if begun is None:
        return True
    file.seek(at + begun.end())
    unpacker, last = zlib.decompressobj(), b""
    try:
        while not unpacker.eof and (piece := file.read(_PIECE)):
            objects = last + unpacker.decompress(piece)
            if _LAYERS in objects:
                return True
            last = objects[-len(_LAYERS) :]
    except zlib.error:
        return True
    return False


def _hidden(properties: Any) -> set[int]:
    """The object numbers of the layers that are off in the default configuration."""
    default = _held(properties, "/D")
    names = {"off": default.get("/OFF", ()), "on": default.get("/ON", ()), "all": properties.get("/OCGs", ())}
    numbers = {key: {ref.idnum for ref in refs.get_object() if hasattr(ref, "idnum")} if refs else set() for key, refs in names.items()}
    off: set[int] = numbers["all"] - numbers["on"] if default.get("/BaseState") == "/OFF" else numbers["off"]
    return off


def _held(holder: Any, key: str) -> Any:
    """What the dictionary `holder` has at `key`, an empty dictionary if nothing."""
    return holder[key].get_object() if key in holder else {}


class _Cutter:
    """Takes marked content and drawings of hidden layers out of content streams."""

    def __init__(self, writer: Any, hidden: set[int]) -> None:
        self._writer, self._hidden = writer, hidden
        self._seen: set[int] = set()

    def cut_page(self, page: Any) -> None:
        from pypdf.generic import ContentStream, NameObject

        contents = page.get_contents()
        if contents is not None:
            stream = ContentStream(contents, self._writer)
            self._cut(stream, _held(page, "/Resources"), 0)
            page[NameObject("/Contents")] = self._writer._add_object(stream)

    def _is_hidden(self, layer: Any) -> bool:
        """Whether content of this layer, or of this membership (OCMD), isn't shown."""
        if layer is None:
            return False
        if getattr(layer, "idnum", None) in self._hidden:
            return True
        members = layer.get_object()
        groups = members.get("/OCGs") if hasattr(members, "get") and members.get("/Type") == "/OCMD" else None
        if groups is None:
            return False
        several = groups.get_object()
        off = [getattr(g, "idnum", None) in self._hidden for g in (several if isinstance(several, list) else [groups])]
        policy = members.get("/P", "/AnyOn")
        shown = {"/AllOn": not any(off), "/AnyOff": any(off), "/AllOff": all(off)}.get(policy, not all(off))
        return bool(off) and not shown

    def _cut(self, stream: Any, resources: Any, depth: int) -> None:
        named = _held(resources, "/Properties")
        drawings = _held(resources, "/XObject")
        kept, opened = [], []
        for operands, operator in stream.operations:
            if operator in (b"BDC", b"BMC"):
                layer = None
                if operator == b"BDC" and operands[0] == "/OC" and isinstance(operands[1], str):
                    layer = named.raw_get(operands[1]) if operands[1] in named else None
                opened.append(self._is_hidden(layer))
                if not any(opened):
                    kept.append((operands, operator))
            elif operator == b"EMC":
                if not any(opened):
                    kept.append((operands, operator))
                if opened:
                    opened.pop()
            elif any(opened) and operator in (b"Tj", b"TJ", b"'", b'"', b"Do", b"INLINE IMAGE"):
                pass  # what draws; the rest may set what later text needs
            elif operator == b"Do" and self._drawing_hidden(drawings, operands[0], depth):
                pass
            else:
                kept.append((operands, operator))
        stream.operations = kept

    def _drawing_hidden(self, drawings: Any, name: str, depth: int) -> bool:
        from pypdf.generic import ContentStream, NameObject

        if name not in drawings:
            return False
        drawing = drawings[name].get_object()
        if "/OC" in drawing and self._is_hidden(drawing.raw_get("/OC")):
            return True
        if drawing.get("/Subtype") == "/Form" and id(drawing) not in self._seen and depth < _DEEPEST:
            self._seen.add(id(drawing))
            stream = ContentStream(drawing, self._writer)
            self._cut(stream, _held(drawing, "/Resources"), depth + 1)
            drawing.set_data(stream.get_data())
            drawing.pop(NameObject("/Filter"), None)
        return False
