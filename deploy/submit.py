"""What spark-submit starts: the pipeline, from the archive that was given by --py-files."""

import sys

from pipeline.job import main

if __name__ == "__main__":
    sys.exit(main())
