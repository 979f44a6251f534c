"""LoRA values, PEFT folders and merge methods: torch only, no model."""
