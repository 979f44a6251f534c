"""``python -m lorasoups``."""

import sys

from lorasoups.run.cli import main

sys.exit(main())
