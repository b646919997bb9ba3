"""How environments are stepped and transitions stored."""
