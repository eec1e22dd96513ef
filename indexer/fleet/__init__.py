"""One process a chain: started, started again where it dies, and shown together. Knows neither node nor file.

Doors: `supervisor.Supervisor` runs them; `messages` is what they tell.
"""
