"""What a run costs and what it sees, told without starting it."""
