"""What the runtime shows to the world around it: HTTP, web frameworks, traces, assistants."""
