"""How many of the four goals of ``MultiGoal-v0`` a policy reaches, and what it does when its favourite is blocked."""
