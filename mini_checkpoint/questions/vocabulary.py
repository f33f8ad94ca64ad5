"""The words of the clips and questions, and what they look like."""

SIDE = 216

COLOURS = {
    "red": (218, 34, 38),
    "green": (38, 176, 52),
    "blue": (40, 72, 232),
    "yellow": (244, 216, 36),
    "purple": (186, 52, 204),
    "white": (246, 246, 246),
}

SHAPES = ("circle", "square", "triangle", "cross")

SPLITS = ("train", "held_out")

# Never seen in training; each of these colours and shapes alone is common there.
HELD_OUT_LOOKS = frozenset({("red", "triangle"), ("green", "cross"), ("blue", "circle"), ("yellow", "square")})
