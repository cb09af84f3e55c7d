"""What rows become: augmentations, one file each."""
