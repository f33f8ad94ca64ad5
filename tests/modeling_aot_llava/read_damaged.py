"""A program: reads damaged copies of the files of a folder, `read_damaged.py FOLDER SEED NUMBER`.

Each must give frames, or a ValueError of one sentence, in a few seconds and a few hundred MB: it dies where one does
not. The last line that it prints says how many were read and how many refused; where it fails, the lines before say
which file did.
"""

import random
import resource
import signal
import sys
from pathlib import Path

from modeling_aot_llava.video_limits import VideoLimits
from modeling_aot_llava.video_reading import read_video

SECONDS_A_FILE = 20  # of this process's CPU time; a whole clip takes some milliseconds
MEMORY = 512 * 2**20  # beyond what reading the whole files takes
LIMITS = VideoLimits(max_pixels_per_frame=2**20, max_pixels=2**23)


def flip_bits(data, rng):
    for _ in range(rng.choice((1, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data, rng):
    del data[rng.randrange(1, len(data)) :]


def cut_front(data, rng):
    del data[: rng.randrange(1, len(data))]


def fill(data, rng):
    start, length = span(data, rng)
    data[start : start + length] = bytes([rng.choice((0, 255))]) * length


def drop(data, rng):
    start, length = span(data, rng)
    if length < len(data):
        del data[start : start + length]


def double(data, rng):
    start, length = span(data, rng)
    data[start:start] = data[start : start + length]


def swap(data, rng):
    _, length = span(data, rng)
    first, second = sorted(rng.randrange(len(data) - length + 1) for _ in range(2))
    if first + length <= second:
        part = data[first : first + length]
        data[first : first + length] = data[second : second + length]
        data[second : second + length] = part


def overwrite_number(data, rng):
    """Where a length or a number of something stands, another may be."""
    start = rng.randrange(max(1, min(len(data), 2048)))
    data[start : start + 4] = rng.choice(
        (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1", b"\1\0\0\0")
    )


def span(data, rng):
    length = min(len(data), rng.choice((1, 4, 16, 188, 1000)))
    return rng.randrange(len(data) - length + 1), length


DAMAGES = (flip_bits, cut, cut_front, fill, drop, double, swap, overwrite_number)


def damaged(content, rng):
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        if len(data) > 1:
            rng.choice(DAMAGES)(data, rng)
    return bytes(data)


def is_read(data):
    try:
        frames, _ = read_video(data, None)
    except ValueError as error:
        message = str(error)
        assert message.endswith("."), message
        assert "\n" not in message, message
        assert len(message) < 400, message
        return False
    assert frames.ndim == 4
    return True


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(folder, seed, number):
    contents = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    for name, content in contents.items():
        assert is_read(content), name
    allowed = peak_memory() + MEMORY
    rng, read = random.Random(seed), 0
    for case in range(number):
        name = rng.choice(list(contents))
        data = damaged(contents[name], rng)
        with open(Path(folder).parent / "last case", "wb") as file:
            file.write(data)
        signal.setitimer(signal.ITIMER_PROF, SECONDS_A_FILE)  # which ends the process
        try:
            read += is_read(data)
        except BaseException:
            print(f"seed {seed}, case {case}: a damaged {name}", flush=True)
            raise
        signal.setitimer(signal.ITIMER_PROF, 0)
        assert peak_memory() < allowed, f"seed {seed}, case {case}: a damaged {name} takes {peak_memory():,} bytes"
    print(f"{read} read, {number - read} refused")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
