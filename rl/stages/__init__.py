"""Stage kinds that train or sample a policy; each folder has a `config.py` and a `stage.py`."""
