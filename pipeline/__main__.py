"""`python -m pipeline` is the job."""

import sys

from pipeline.job import main

sys.exit(main())
