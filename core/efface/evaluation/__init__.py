"""How well an erasure does, in numbers with intervals: what is gone, what stayed, what else changed."""
