"""`python -m onnxq` is the command `onnxq`."""

from __future__ import annotations

import sys

from onnxq.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
