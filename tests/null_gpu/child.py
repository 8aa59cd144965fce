"""Calls a function of a test module in a process of its own and prints what it returns as JSON.

python child.py FILE FUNCTION ARGUMENTS_AS_JSON
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

RESULT = "result: "


def main() -> None:
    file, function, arguments = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    sys.path[:0] = [str(file.parent), str(file.parents[1])]
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    print(RESULT + json.dumps(getattr(module, function)(*arguments)), flush=True)  # noqa: T201
    os._exit(0)  # the end of the interpreter now and then aborts, because a thread of PyTorch still runs


if __name__ == "__main__":
    main()
