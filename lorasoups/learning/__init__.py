"""What is trained on a frozen base: a skill LoRA, CAT's alphas, and CAT's rivals."""
