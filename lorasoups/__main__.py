"""``python -m lorasoups``."""

import sys

from lorasoups.cli import main

sys.exit(main())
