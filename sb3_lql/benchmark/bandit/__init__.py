"""The paper's 2-D bandit (section 6.1, appendices C and D): how well a sampler covers modes and obeys its distribution.

Actions are in the environment's coordinates, [-2, 2]², wherever nothing else is said.
"""
