"""``python -m lorasoups``."""

from lorasoups.run.cli import main

raise SystemExit(main())
