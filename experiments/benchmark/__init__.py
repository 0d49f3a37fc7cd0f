"""Time and memory of the losses, and of the loop that trains with them."""
