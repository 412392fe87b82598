"""Which encoder stays alive on frames: variants trained offline on stored frames of random play.

Light to import: `variants` alone knows the settings; JAX loads with the other modules.
"""
