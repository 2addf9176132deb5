"""Writes a screenshot again as a PNG with a palette: a third of its size, for a page with few colours."""

import collections
import struct
import zlib


def pixels(png):
    """Width, height and the rows of a PNG with 8 bits for each of RGB or RGBA."""
    at, data = 8, b""
    while at < len(png):
        (length,), kind = struct.unpack(">I", png[at:at + 4]), png[at + 4:at + 8]
        chunk = png[at + 8:at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, color = struct.unpack(">IIBB", chunk[:10])
        elif kind == b"IDAT":
            data += chunk
        at += length + 12
    assert depth == 8 and color in (2, 6), "not a screenshot of Chromium"
    size = 3 if color == 2 else 4
    data, stride = zlib.decompress(data), width * size
    above, rows = bytearray(stride), []
    for y in range(height):
        start = y * (stride + 1)
        row = bytearray(data[start + 1:start + 1 + stride])
        unfilter(data[start], row, above, size)
        rows.append([bytes(row[x:x + 3]) for x in range(0, stride, size)])
        above = row
    return width, height, rows


def unfilter(kind, row, above, size):
    """PNG §9.2: each byte is told as a difference from its neighbours."""
    for x in range(len(row) if kind else 0):
        left = row[x - size] if x >= size else 0
        up = above[x]
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = up
        elif kind == 3:
            guess = (left + up) // 2
        else:
            corner = above[x - size] if x >= size else 0
            guess = min((left, up, corner), key=lambda near: abs(left + up - corner - near))
        row[x] = (row[x] + guess) & 255


def distance(one, other):
    return sum((a - b) ** 2 for a, b in zip(one, other))


def write(source, target):
    with open(source, "rb") as file:
        width, height, rows = pixels(file.read())
    counted = collections.Counter(color for row in rows for color in row)
    # Plain surfaces have the most frequent colors. Of the others, those that the eye tells from all before them.
    frequent = [color for color, _ in counted.most_common()]
    colors = frequent[:48]
    for color in frequent[48:]:
        if len(colors) < 256 and all(distance(color, other) > 150 for other in colors):
            colors.append(color)
    near = {color: min(range(len(colors)), key=lambda index: distance(color, colors[index])) for color in counted}
    data = b"".join(b"\0" + bytes(near[color] for color in row) for row in rows)
    with open(target, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
        for kind, chunk in ((b"IHDR", header), (b"PLTE", b"".join(colors)), (b"IDAT", zlib.compress(data, 9)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(chunk)) + kind + chunk + struct.pack(">I", zlib.crc32(kind + chunk)))
