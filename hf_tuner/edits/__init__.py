"""What the model is: changes of its structure, one file each."""
