"""What is shown: HTML that reads as text, and its plain form, of runs, errors, values and progress."""
