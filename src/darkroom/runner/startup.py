"""Imported first by the scripts in stages/: while dvc's stage imports the rest, Ctrl-C ends it at once, and nothing
that lies beside the script is imported in place of the library's own.

Importing PyTorch swallows one KeyboardInterrupt in four, and dvc, which leaves Ctrl-C to the stage, would wait for it.
`run_stage` takes the signal over. A rank of a training ends with the torchrun that started it.

dvc.yaml starts the scripts with `python -P`, which leaves their folder out of where Python looks. Of a script that a
person starts without it, the folder is taken out here, before anything is imported that may lie there.
"""

import sys

_main = getattr(sys.modules.get("__main__"), "__file__", None) or ""
_folder = _main.rpartition("/")[0]
if not sys.flags.safe_path and _folder.rpartition("/")[2] == "stages" and _folder == sys.path[0]:
    del sys.path[0]

import os  # noqa: E402
import signal  # noqa: E402

if "DVC_STAGE" in os.environ:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

if "RANK" in os.environ and sys.platform == "linux":  # elsewhere a rank ends when the store no longer answers
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: with torchrun, whatever ends that
