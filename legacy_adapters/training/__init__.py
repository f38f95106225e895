"""Steps of a training, on one rank or several."""
