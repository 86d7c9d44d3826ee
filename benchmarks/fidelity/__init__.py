"""Whether the papers' claims come out here: numeric identities, and claims tried at small scale over several seeds."""
