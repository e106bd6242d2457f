"""Image files without their metadata. Broken metadata can keep a decoder from good pixels."""

import struct

_JPEG_KEPT = {0xE0, 0xEE}  # JFIF and Adobe: they say how colours are stored
_PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_WEBP_DROPPED = {b"EXIF", b"XMP ", b"ICCP"}
_TIFF_KEPT = {254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325}
_TIFF_KEPT |= {338, 339, 347, 530, 531, 532}


def without_metadata(data: bytes) -> bytes | None:
    """The bytes of an image file without its metadata.

    Comments, EXIF, XMP, profiles and texts go. JPEG, PNG, WebP, TIFF and AVIF are known; None for others.
    """
    if data[4:11] == b"ftypavi":
        pixels = data.find(b"mdat")  # items of an unknown kind are passed over
        return data[:pixels].replace(b"Exif", b"none") + data[pixels:]
    for magic, strip in ((b"\xff\xd8", _jpeg), (b"\x89PNG\r\n\x1a\n", _png), (b"RIFF", _webp), (b"II*\0", _tiff)):
        if data.startswith(magic):
            return strip(data)
    return _tiff(data) if data.startswith(b"MM\0*") else None


def _jpeg(data: bytes) -> bytes:
    kept, place = [data[:2]], 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = struct.unpack(">BH", data[place + 1 : place + 4])
        if marker == 0xDA:  # the pixels follow
            break
        dropped = (0xE0 <= marker <= 0xEF and marker not in _JPEG_KEPT) or marker == 0xFE
        if not dropped:
            kept.append(data[place : place + 2 + length])
        place += 2 + length
    return b"".join([*kept, data[place:]])


def _png(data: bytes) -> bytes:
    kept, place = [data[:8]], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        if data[place + 4 : place + 8] in _PNG_KEPT:
            kept.append(data[place : place + 12 + length])
        place += 12 + length
    return b"".join(kept)


def _webp(data: bytes) -> bytes:
    kept, place = [data[8:12]], 12
    while place + 8 <= len(data):
        kind, length = struct.unpack("<4sI", data[place : place + 8])
        chunk = data[place : place + 8 + length + length % 2]
        if kind == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~0b101100]) + chunk[9:]  # no EXIF, XMP and profile follow
        if kind not in _WEBP_DROPPED:
            kept.append(chunk)
        place += len(chunk)
    body = b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _tiff(data: bytes) -> bytes:
    """The first page with the tags that say how pixels are stored."""
    order = "<" if data.startswith(b"II") else ">"
    if len(data) < 10:
        return data
    (start,) = struct.unpack(order + "I", data[4:8])
    if start + 2 > len(data):
        return data
    (count,) = struct.unpack(order + "H", data[start : start + 2])
    entries = [data[start + 2 + 12 * k : start + 14 + 12 * k] for k in range(count)]
    kept = [e for e in entries if len(e) == 12 and struct.unpack(order + "H", e[:2])[0] in _TIFF_KEPT]
    listing = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)
    return data[:start] + listing + data[start + len(listing) :]
