"""The directory of a zip that somebody else wrote: read within bounds, and nothing of it is unpacked.

Source: APPNOTE.TXT 4.3.14 to 4.3.16; D. Fifield, "A better zip bomb" (2019), for members that overlap.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
from collections import Counter
from collections.abc import Sequence
from typing import BinaryIO

LARGEST_DIRECTORY = 16 << 20
MEMBERS = 50_000  # a large forest in skops has about a hundred files a tree
TAIL = 65_535 + 22 + 76  # the longest comment, the end record, the two of zip64
# Honest weights hardly shrink; what is small may be all zeros.
GROWTH, GROWTH_FREE = 100, 64 << 20
OUTSIDE = re.compile(r"^/|^[A-Za-z]:|\\|\0|(^|/)\.\.(/|$)")


class Damaged(ValueError):
    """No zip, or one whose directory cannot be read, or would fill the memory."""


def directory(stream: BinaryIO) -> Sequence[zipfile.ZipInfo]:
    """The members of a zip, in their order; `Damaged`."""
    try:
        if _directory_size(stream) > LARGEST_DIRECTORY:
            raise Damaged(f"its directory is larger than {LARGEST_DIRECTORY >> 20} MiB")
        return zipfile.ZipFile(stream).infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error, OSError) as error:
        raise Damaged(f"its directory cannot be read: {error}; is it complete?") from None


def names(stream: BinaryIO) -> Sequence[str]:
    """Of the members; none of a zip that is damaged."""
    try:
        return [member.filename for member in directory(stream)]
    except Damaged:
        return ()


def objection(members: Sequence[zipfile.ZipInfo], size: int) -> str:
    """Why a zip of `size` bytes with these members is not to be unpacked, or ""."""
    if len(members) > MEMBERS:
        return f"has {len(members)} members; {MEMBERS} are allowed"
    for member in members:
        if reason := _objection(member):
            return f"its member {member.orig_filename[:100]!r} {reason}"
    twice = [name for name, count in Counter(member.filename for member in members).items() if count > 1]
    if twice:
        return f"has two members {twice[0][:100]!r}"
    if sum(member.compress_size for member in members) > size:
        return "its members overlap, as those of a zip bomb do"
    whole = sum(member.file_size for member in members)
    if whole > GROWTH * size + GROWTH_FREE:
        return f"unpacks to {whole >> 20} MiB from {size >> 10} KiB, as a zip bomb does"
    return ""


def _objection(member: zipfile.ZipInfo) -> str:
    if OUTSIDE.search(member.orig_filename):
        return "leads out of the archive"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a symbolic link"
    return "is encrypted" if member.flag_bits & 1 else ""


def _directory_size(stream: BinaryIO) -> int:
    """How long a zip says its directory is, found the way `zipfile` finds it."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - TAIL))
    tail = stream.read()
    plain = tail[-22:-18] == b"PK\5\6" and tail[-2:] == b"\0\0"
    end = len(tail) - 22 if plain else tail.rfind(b"PK\5\6")
    if tail[end - 20 : end - 16] == b"PK\6\7":  # zip64: its own end record is in front
        return int(struct.unpack_from("<Q", tail, end - 76 + 40)[0])
    return int(struct.unpack_from("<I", tail, end + 12)[0])
