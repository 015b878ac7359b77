"""One file for each further operation or group of them; they never import each other."""
