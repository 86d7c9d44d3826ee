"""The mathematics verifier: extraction of a completion's answer, and comparison with the true one."""
