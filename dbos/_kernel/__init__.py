"""The ground: the database, the lane that writes, the bell that wakes, the journal of steps. No workflow is known here."""
