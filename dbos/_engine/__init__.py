"""What runs the functions of users: workflows, steps, transactions, claims, ownership, recovery, launching."""
