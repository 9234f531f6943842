"""Commands: what they take, what they show, how they begin and end."""
