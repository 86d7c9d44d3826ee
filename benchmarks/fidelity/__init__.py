"""Tests of the papers' claims: numeric identities, and claims tried at small scale over several seeds."""
