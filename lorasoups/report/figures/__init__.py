"""The figures: functions ``(results) -> Figure``; `style` holds the one look and ``save``."""
