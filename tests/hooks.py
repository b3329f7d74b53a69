"""Hooks that a call may leave on a model."""

from torch import nn

KINDS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def find_hooked_modules(model: nn.Module) -> list[str]:
    """Names of the modules with a hook or with a forward that is not their class's."""
    return [
        name
        for name, module in model.named_modules()
        if "forward" in vars(module) or any(getattr(module, kind) for kind in KINDS)
    ]
