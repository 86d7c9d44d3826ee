"""`tiny` with two layers in place of six, for tests that compare trainings with each other: a third of the work."""

from gemsmith.policy.loading import tiny

OF_SIX_LAYERS = tiny.tiny_config


def make_tiny_shallow() -> None:
    """Give every `tiny` of this process one local and one global layer, which are all the kinds that it has."""
    tiny.tiny_config = _shallow


def _shallow(size: tiny.Size = "small") -> tiny.Gemma3TextConfig:
    config = OF_SIX_LAYERS(size)
    config.num_hidden_layers, config.layer_types = 2, ["sliding_attention", "full_attention"]
    return config
