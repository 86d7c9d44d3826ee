"""The mathematics verifier: finding the answer of a completion, and comparing it with the true one."""
