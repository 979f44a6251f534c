"""What is trained on a frozen base: a skill LoRA, CAT's alphas, and CAT's rivals."""

from dataclasses import dataclass

LLAMA_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class SkillTraining:
    """How a skill LoRA is trained; here, so that profiles can be read without PEFT."""

    r: int = 8
    lora_alpha: int = 16  # LoRA's own scale, not CAT's alphas
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] = LLAMA_PROJECTIONS
    lr: float = 1e-3
    steps: int = 400
    batch_size: int = 32
    warmup_steps: int = 20
    bf16: bool | str = "auto"  # bfloat16 autocast; auto: where that is faster than float32
