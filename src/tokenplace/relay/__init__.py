"""THE BLIND MIDDLE: passes sealed bytes, knows neither keys nor words."""
