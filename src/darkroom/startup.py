"""Imported first by the scripts in stages/: while dvc's stage imports the rest, Ctrl-C ends it at once.

Importing PyTorch swallows one KeyboardInterrupt in four, and dvc, which leaves Ctrl-C to the stage, would wait for it.
`run_stage` takes the signal over.
"""

import os
import signal

if "DVC_STAGE" in os.environ:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
