"""Runs Python in a process whose memory AddressSanitizer watches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[2]
PRELUDE = """
import numpy as np
from tests.cuda.shim import ShimRuntime
"""


def run_sanitized(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` after PRELUDE; skips the test where the compiler has no AddressSanitizer."""
    command = ["g++", "-print-file-name=libasan.so"]
    library = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(library).is_absolute():
        pytest.skip("g++ has no AddressSanitizer here: out-of-bounds accesses are not looked for")
    environment = os.environ | {
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0",  # of the interpreter's own
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", PRELUDE + dedent(code)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
