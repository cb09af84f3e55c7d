"""What is wrong: losses, one file each."""
