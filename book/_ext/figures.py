"""Draw a figure anew for the dark theme: the same SVG, colour by colour.

Images and heat maps stay as they are, with the text upon them, so that what a caption calls dark is dark.
"""

import colorsys
import re

GROUND = "#121212"  # of the theme's dark page
INK = "#e4e4e4"
DARK = {  # the palette of experiments/plots.py and the few others that charts use
    "#000000": INK, "#333333": "#d6d6d6", "#3b3b3b": "#d6d6d6", "#6a6a6a": "#a8a8a8", "#949494": "#8a8a8a",
    "#dddddd": "#3a3a3a", "#e4e4e4": "#383838", "#ffffff": GROUND,
    "#0173b2": "#5fb0ee", "#de8f05": "#ffc247", "#029e73": "#2fc796", "#d55e00": "#ff7043", "#cc78bc": "#e39ad4",
    "#56b4e9": "#8fd3ff",
}  # fmt: skip
COLOUR = re.compile(r"(?<![\w&#])#(?:[0-9a-fA-F]{6}|[0-9a-fA-F]{3})(?![0-9a-zA-Z_-])")
LONG = re.compile(r"(?<![\d.])([1-9]\d*\.\d\d)\d+")  # not the small ones: glyphs are scaled by 0.015625
IMAGE = re.compile(r"""(data:image/[^"']*)""")
LEAST = 4.5  # contrast with the ground


def dark(svg: str) -> str:
    """Return an SVG of matplotlib's for a dark page."""
    meshes = list(MESH.finditer(svg))  # of a heat map
    images = [_box(found) for found in PICTURE.finditer(svg)] + [_ends(found) for found in meshes]
    upon = [found for found in TEXT.finditer(svg) if any(_within(found, box) for box in images)]
    parts, at = [], 0
    for found in sorted(meshes + upon, key=lambda found: found.start()):  # stay as they are
        parts += [_recoloured(svg[at : found.start()]), found[0].replace("<g ", '<g fill="#000000" ', 1)]
        at = found.end()
    return "".join([*parts, _recoloured(svg[at:])]).replace("<svg ", f'<svg fill="{INK}" ', 1)  # black is not written


MESH = re.compile(r'<g id="QuadMesh_\d+">.*?</g>', re.S)
PICTURE = re.compile(r"<image [^>]*>")
TEXT = re.compile(r'<g id="text_\d+">(?:(?!<g id=).)*?translate\(([-\d.]+) ([-\d.]+)\).*?(?=<g id="|</svg>)', re.S)


def _recoloured(svg):
    parts = IMAGE.split(svg)
    parts[::2] = [COLOUR.sub(lambda found: on_dark(found[0]), part) for part in parts[::2]]
    return "".join(parts)


def _box(found):
    """Return left, top, right and bottom of an image; matplotlib's stand on their heads."""
    x, y, width, height = (
        float(re.search(rf' {name}="([-\d.]+)"', found[0])[1]) for name in ("x", "y", "width", "height")
    )
    turned = re.search(r"scale\(1 -1\) translate\(0 -([\d.]+)\)", found[0])
    top = float(turned[1]) - y - height if turned else y
    return x, top, x + width, top + height


def _ends(mesh):
    """Return left, top, right and bottom of what a heat map covers."""
    x, y = zip(*((float(a), float(b)) for a, b in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", mesh[0])), strict=True)
    return min(x), min(y), max(x), max(y)


def _within(text, box):
    x, y = float(text[1]), float(text[2])
    return box[0] - 6 <= x <= box[2] and box[1] < y <= box[3]


def smaller(svg: str) -> str:
    """Return the same SVG without remarks and decimals that nobody sees."""
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.S)
    parts = IMAGE.split(svg)
    parts[::2] = [re.sub(r"\n\s*", "\n", LONG.sub(r"\1", part)) for part in parts[::2]]
    return "".join(parts)


def on_dark(colour: str) -> str:
    """Return what takes the place of a colour: its pair; else the same hue, greys and tints turned, the rest lit up."""
    colour = colour.lower()
    colour = "#" + "".join(2 * c for c in colour[1:]) if len(colour) == 4 else colour
    if colour in DARK:
        return DARK[colour]
    hue, light, strength = colorsys.rgb_to_hls(*_rgb(colour))
    if strength < 0.12:  # a grey
        light = 0.07 + 0.83 * (1 - light)
    elif light > 0.85:  # a tint, to be written upon
        light, strength = 1.05 - light, strength / 2
    else:
        while light < 1 and contrast(_hex(colorsys.hls_to_rgb(hue, light, strength)), GROUND) < LEAST:
            light += 0.02
    return _hex(colorsys.hls_to_rgb(hue, min(light, 1), strength))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21, as WCAG has it."""
    low, high = sorted(_luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour):
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in _rgb(colour)]
    return sum(weight * v for weight, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _rgb(colour):
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def _hex(rgb):
    return "#" + "".join(f"{round(255 * v):02x}" for v in rgb)
