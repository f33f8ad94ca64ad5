"""A program: reads a clip, and then in a worker process of a `DataLoader` that is started as its second argument says.

It prints how many frames the worker read. The worker collects garbage first, as Python does sooner or later: what the
first reading left behind would be freed there, where its threads do not exist.
"""

import gc
import sys

from torch.utils.data import DataLoader

from modeling_aot_llava.video_reading import read_video


class Clips:
    """A data set of one clip."""

    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 1

    def __getitem__(self, _):
        gc.collect()
        return len(read_video(self.path, num_frames=32)[0])


if __name__ == "__main__":
    clip, method = sys.argv[1:]
    gc.disable()
    for _ in range(2):
        read_video(clip, num_frames=32)
    print(*DataLoader(Clips(clip), batch_size=None, num_workers=1, multiprocessing_context=method))
