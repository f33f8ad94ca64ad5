"""From a video file to the first token: where the time goes, stock and AOT. `python -m benchmarks.first_token`.

In the order of a run: `options.py`, `clip_files.py` makes the files, `readers.py` reads them with each library,
`way.py` goes from a file to the first token, `report.py` and `plot.py` tell.
"""
