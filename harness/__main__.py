"""`python -m harness` is `harness`: modules that lie in the working folder are not the harness's."""

import os
import sys

if not sys.flags.safe_path and sys.path[0] == os.getcwd() != os.path.dirname(os.path.dirname(__file__)):
    del sys.path[0]

from harness.cli import main

main()
