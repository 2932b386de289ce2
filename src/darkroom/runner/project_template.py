"""The texts that `darkroom new` writes; the rest of a project is copied from what is installed."""

STAGE = '''\
"""{stage}: the installed darkroom's; code/{stage}.json says which code that is."""

import darkroom.runner.startup  # noqa: F401

# isort: split
from darkroom.runner.installed import run_installed

if __name__ == "__main__":
    run_installed("{stage}")
'''

CODE_STAGE = """\
  code:
    desc: Which code of the installed darkroom each stage runs; looked at each time, for an upgrade changes no file here
    cmd: {command}
    always_changed: true
    outs:
{outputs}"""

README = """\
# {name}

Begun with Darkroom {version} and the recipe `{recipe}`. The programs `darkroom` and `dvc` are to be on the PATH:
activate the environment that Darkroom is installed in.

```console
$ darkroom params check               # is params.yaml sound?
$ dvc repro                           # train whatever is out of date, end to end
$ git add . && git commit -m trained  # keep what was made, and from what
$ darkroom generate "{caption}"
$ darkroom audit                      # what was made from what, and does it all still hold?
$ darkroom ui                         # the runs, pictures and models in the browser
```

| | |
|---|---|
| `params.yaml` | what is trained; `darkroom params explain KEY` says what a key means |
| `dvc.yaml`, `stages/` | the stages: each runs the installed package's own |
| `code/STAGE.json` | the modules that a stage runs, by their hashes; written by `darkroom sync`, the first stage |
| `data/`, `artifacts/` | what the stages make; DVC keeps it, and `dvc push` takes it to the remote |
| `reports/STAGE/` | figures and pictures to look at; those of the finished model in `reports/evaluation/` |
| `.darkroom/` | records of the runs; commit them |

**Another Darkroom.** After `pip install --upgrade darkroom`, `darkroom status` names the stages whose code has changed;
`dvc repro` runs them again. Where you know that a change does not matter to you, `darkroom keep STAGE` keeps what a
stage made, and every audit says so until it runs again. To make again what an old commit made, install the version that
its `code/` names.

**Pictures from outside** lie below `data/raw`, or below the folder that `DARKROOM_DATA` names; a link will do. Neither
git nor DVC keeps them: `data/manifests` says which they are, by their hashes. When they change: `darkroom data scan`.

**Another recipe.** `darkroom recipe list`, then `darkroom recipe use NAME`.

**Elsewhere.** `git clone` this, install Darkroom, `dvc pull`. For that the data and models must be in a remote:
`dvc remote add --default storage s3://BUCKET/PATH`, or a folder, then `dvc push`.
"""
