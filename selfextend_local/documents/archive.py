"""Zip files that hold a document: opened with limits, so that no bomb goes off.

Knows zipfile and what an honest book or text needs at most. Must not know what the members mean. Nothing is unpacked to
disk, and a zip within a zip is never opened.
"""

from __future__ import annotations

import io
import lzma
import re
import struct
import zipfile
import zlib
from pathlib import Path

from selfextend_local.errors import DocumentDamaged, DocumentEncrypted, DocumentUnsupported

_MOST_MEMBERS = 20_000
_LARGEST_TEXT = 64 * 2**20  # of one member that is read as text
_LARGEST = 1024 * 2**20  # of all members together, pictures included
_RATIO = 120  # prose deflates to a third, tables of zeros to a thousandth
_SMALL = 4 * 2**20  # below this the ratio doesn't matter
# What zipfile, and what unpacks for it, raises for files that are none.
_ODD = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
    RuntimeError,
)
_ENTITY = re.compile(rb"<\0?!\0?E\0?N\0?T\0?I\0?T\0?Y")


class Archive:
    """The members of a zip file.

    Raises DocumentDamaged if it can't be opened, DocumentUnsupported if its sizes are those of a zip bomb.
    """

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except _ODD as error:
            raise DocumentDamaged(f"{path} is a damaged zip file: fetch it again, or save it anew where it was made") from error
        # Some programs on Windows write backslashes where the format wants slashes.
        self._members = {info.filename.replace("\\", "/"): info for info in self._zip.infolist()}
        self._spellings = {name.lower(): name for name in self._members}
        total = sum(info.file_size for info in self._zip.infolist())
        if len(self._zip.infolist()) > _MOST_MEMBERS or total > _LARGEST:
            raise self._bomb(f"unpacks to {total >> 20} MiB in {len(self._zip.infolist())} files")

    @property
    def names(self) -> frozenset[str]:
        """Of all members."""
        return frozenset(self._members)

    def find(self, name: str) -> str | None:
        """The member that `name` means: that one, or one whose name differs in upper and lower case only."""
        return name if name in self._members else self._spellings.get(name.lower())

    def read(self, name: str) -> bytes:
        """A member's bytes.

        Raises:
            KeyError: there is no such member.
            DocumentDamaged: it can't be unpacked.
            DocumentEncrypted: it needs a password.
            DocumentUnsupported: it is larger, or packed tighter, than any text.
        """
        info = self._members[name]
        if info.flag_bits & 1:
            raise DocumentEncrypted(f"{self._path} is a zip file with a password: unpack it and pack it again without one")
        if info.file_size > _LARGEST_TEXT or info.file_size > _SMALL + _RATIO * info.compress_size:
            raise self._bomb(f"holds {name}, {info.compress_size >> 10} KiB that unpack to {info.file_size >> 20} MiB")
        try:
            # zipfile never gives more than file_size bytes, whatever the packed data would make.
            return self._zip.read(info)
        except _ODD as error:
            raise DocumentDamaged(f"{self._path} is damaged in {name}: fetch it again, or save it anew where it was made") from error

    def read_xml(self, name: str) -> bytes:
        """As `read`, for a member that goes to an XML parser.

        Raises DocumentUnsupported, too, if it defines entities, which can grow without limit.
        """
        data = self.read(name)
        if _ENTITY.search(data):
            raise self._bomb(f"holds {name}, which defines XML entities")
        return data

    def _bomb(self, what: str) -> DocumentUnsupported:
        return DocumentUnsupported(f"{self._path} {what}; it isn't opened, since it may be a zip bomb: save it as PDF or text")
