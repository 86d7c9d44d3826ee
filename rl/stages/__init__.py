"""Stage kinds that train or sample a policy, one folder each: `config.py` and `stage.py`."""
