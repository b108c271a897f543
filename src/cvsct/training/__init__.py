"""How the networks learn: losses, steps and the loop that runs them."""
