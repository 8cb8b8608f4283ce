"""Makes src/memory_rl/reporting/templates/glyphs.json: the outlines in which figures are written.

The font is Liberation Sans, regular and bold, as vl-convert carries and measures it (SIL Open Font License
1.1). So what is drawn is as wide as what was laid out, whatever fonts a reader has.

pip install fonttools && python docs/make_glyphs.py
"""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import vl_convert
from fontTools.pens.svgPathPen import SVGPathPen
from fontTools.ttLib import TTFont

TARGET = Path(__file__).parents[1] / "src/memory_rl/reporting/templates/glyphs.json"
WANTED = [*range(0x20, 0x7F), *range(0xA0, 0x100), *range(0x391, 0x3CA)]
WANTED += [0x2013, 0x2014, *range(0x2018, 0x201E), 0x2022, 0x2026, *range(0x2190, 0x2194)]  # dashes to arrows
WANTED += [0x2212, 0x221A, 0x221E, 0x2248, 0x2260, 0x2264, 0x2265]  # minus, root, infinity, comparisons


def carried(name: str) -> TTFont:
    """The font of this name within the library of vl-convert."""
    (library,) = Path(vl_convert.__file__).parent.glob("vl_convert*.so")
    content, place = library.read_bytes(), 0
    while (place := content.find(b"glyf", place + 1)) > 0:  # an entry of a font's directory of tables
        start = content.rfind(b"\x00\x01\x00\x00\x00", place - 12 - 16 * 30, place)
        if start < 0:
            continue
        (tables,) = struct.unpack(">H", content[start + 4 : start + 6])
        records = [content[start + 12 + 16 * row :][:16] for row in range(tables)]
        if {record[:4] for record in records} >= {b"glyf", b"name", b"cmap", b"hmtx"}:
            end = max(sum(struct.unpack(">II", record[8:])) for record in records)
            font = TTFont(io.BytesIO(content[start : start + end]))
            if font["name"].getDebugName(6) == name:
                return font
    raise SystemExit(f"vl-convert carries no {name}")


def outlines(font: TTFont) -> dict[str, list[object]]:
    """Of each character its advance and its path, in thousandths of the type's size, y upwards."""
    glyphs, names = font.getGlyphSet(), font.getBestCmap()
    scale = 1000 / font["head"].unitsPerEm
    found = {}
    for code in sorted(set(WANTED) & names.keys()):
        pen = SVGPathPen(glyphs, ntos=lambda value: str(round(value * scale)))
        glyphs[names[code]].draw(pen)
        found[chr(code)] = [round(glyphs[names[code]].width * scale, 2), pen.getCommands()]
    return found


if __name__ == "__main__":
    fonts = {"normal": "LiberationSans", "bold": "LiberationSans-Bold"}
    made = {weight: outlines(carried(name)) for weight, name in fonts.items()}
    TARGET.write_text(json.dumps(made, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
